"""The trials of a sweep as parallel coordinates: an axis per varied field, a line per trial, darker if it is better."""

import io
import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from raystp.cluster.training.trials import Trial

FEWEST_TRIALS = 2
AXIS_INCHES = 1.7


def parallel_coordinates(
    trials: Sequence[Trial], space: Mapping[str, Sequence[Any]], metric: str, *, maximise: bool
) -> bytes | None:
    """Return Optuna's chart as PNG; None for fewer than two trials with a score."""
    # Both are slow to import, and only a finished sweep draws.
    import optuna  # noqa: PLC0415
    from matplotlib import pyplot as plt  # noqa: PLC0415

    scored = [one for one in trials if one.score is not None]
    if len(scored) < FEWEST_TRIALS:
        return None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize" if maximise else "minimize")
    distributions = {
        key: _distribution(values, [one.overrides[key] for one in scored]) for key, values in space.items()
    }
    for one in scored:
        values = {key: _plotted(one.overrides[key]) for key in space}
        study.add_trial(optuna.trial.create_trial(params=values, distributions=distributions, value=one.score))
    with warnings.catch_warnings():  # of its own state, and of an axis with one value
        warnings.simplefilter("ignore")
        axes = optuna.visualization.matplotlib.plot_parallel_coordinate(study, target_name=metric)
    figure, content = axes.get_figure(root=True), io.BytesIO()
    assert figure is not None  # Optuna has drawn it
    figure.set_size_inches(max(6.4, AXIS_INCHES * (len(space) + 2)), 4.8)
    axes.set_title("")
    figure.savefig(content, format="png", bbox_inches="tight", dpi=120, metadata={"Software": None})
    plt.close(figure)
    return content.getvalue()


def _distribution(values: Sequence[Any], drawn: Sequence[Any]) -> Any:
    """Return Optuna's distribution of a field, as wide as what was drawn."""
    from optuna import distributions  # noqa: PLC0415 -- as above

    name = values[0]
    if name == "choice":
        return distributions.CategoricalDistribution(list(dict.fromkeys(_plotted(one) for one in values[1:])))
    return distributions.FloatDistribution(float(min(drawn)), float(max(drawn)), log=str(name).startswith("log"))


def _plotted(value: Any) -> Any:
    """Return a value that Optuna draws: a list or mapping, which a choice may have, is its text."""
    return value if value is None or isinstance(value, str | int | float) else json.dumps(value)
