"""A model as named arrays, and the image tower among them; light to import, since every encoding process does."""

import numpy as np
from jaxtyping import Shaped

Arrays = dict[str, Shaped[np.ndarray, "..."]]
"""A model's arrays by name, as they lie in its file."""

TOWER = "tower."
"""How the names of a trained tower's arrays begin."""


def tower_weights(arrays: Arrays) -> Arrays:
    """Return the weights of the image tower that was trained with a model, under its own names; empty without one."""
    return {name.removeprefix(TOWER): value for name, value in arrays.items() if name.startswith(TOWER)}
