"""Let torchvision be imported beside a torch that its compiled part was not built for; timm cannot do without it.

A CUDA build of torchvision (what the package index gives) next to a CPU build of torch cannot load its compiled part,
and then fails to import: its Python part describes operators, `nms` and `qnms`, that nobody declared. Declared, they
are described, and everything but the detection operators works. Where torchvision imports by itself, nothing is done.
"""

import functools
import importlib
import sys

import torch

_ABSENT = "operator torchvision::"
_OPERATORS = ("nms", "qnms")


def make_importable() -> None:
    """Import torchvision, declaring the operators it misses where that is what it fails of."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if not str(error).startswith(_ABSENT):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]  # the half that was imported
        _declared()
        importlib.import_module("torchvision")


@functools.cache
def _declared() -> torch.library.Library:
    """Declare the operators; cached, since they are gone once the library object is."""
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]  # torch gives it no types
    for name in _OPERATORS:
        signature = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        library.define(signature)  # type: ignore[no-untyped-call]  # nor this
    return library
