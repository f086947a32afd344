"""The learning curve of a pipeline: the same models, trained on fewer sections, scored on the same test sections.

The training sections are put in a random order, and a point trains on the first n of it: smaller subsets are parts of
larger ones. Each point is a training, index, prediction and evaluation of its own: a second run does what is missing.
The whole training side is the pipeline's own evaluation, whose report shows the curve.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raystp.errors import ConfigError, some
from raystp.steps.pipeline.config import PipelineConfig, Values, is_ensemble
from raystp.steps.pipeline.folds.config import LearningCurveConfig
from raystp.steps.pipeline.folds.fold import UNKNOWN, Fold

if TYPE_CHECKING:
    import raystp.artifacts

SIDES = ("test", "validation", "train")


@dataclass(frozen=True)
class CurvePoint(Fold):
    """A training on some of the training sections: the test side is that of the trainings themselves."""

    count: int = 0
    """Training sections."""
    order: int = 0
    """Seed of the order of the training sections."""

    @property
    def role(self) -> str:
        """What the point is called in the log."""
        return f"with {self.count} training sections, order {self.order}"

    def named(self, name: str) -> str:
        """Return the name of an artifact of this point."""
        return f"{name}-train{self.count}-order{self.order}"

    def evaluation(self, values: Values, name: str) -> Values:
        """Return the evaluation of this point; the null is that of the whole training side alone."""
        return {**super().evaluation(values, name), "permutations": 0}


def check_curve(config: PipelineConfig) -> None:
    """Raise ConfigError for fields that contradict a learning curve."""
    faults = []
    if config.folds is not None or config.protocol is not None:
        faults.append("learning_curve: its points are of one training side: set folds=null and protocol=null")
    if config.of_cases or any(one.get("targets") == "cases" for one in config.models()):
        faults.append("learning_curve: its points are numbers of measured sections, and a training learns from cases")
    if config.complete is not None:
        faults.append("learning_curve: one completion would be fitted on all training sections: set complete=null")
    splits = {_sides(one) for one in config.models() if not is_ensemble(one)}
    if len(splits) > 1:
        faults.append("learning_curve: the trainings have different splits: set one in `shared.split`")
    if faults:
        raise ConfigError("\n".join(f"pipeline: {fault}" for fault in faults))


def planned_points(curve: LearningCurveConfig) -> list[CurvePoint]:
    """Return the points as far as they are known before any slide is read."""
    return [_point(number, UNKNOWN_SIDES, count, order) for number, count, order in _numbered(curve)]


def curve_points(
    config: PipelineConfig, measured: "raystp.artifacts.Artifact", embeddings: Sequence[str]
) -> list[CurvePoint]:
    """Return the points; raises ConfigError for one with as many sections as there are, or more."""
    from raystp.expression.folds import sections_named  # noqa: PLC0415 -- configs are read without NumPy
    from raystp.expression.sections import sections_of  # noqa: PLC0415 -- the same
    from raystp.steps.embedding_source import open_embeddings  # noqa: PLC0415 -- the same

    curve = config.learning_curve
    assert curve is not None  # called only then
    imaged = open_embeddings(config.run.store, list(embeddings)).manifest.notes["patients"]
    known = {name: one for name, one in sections_of(measured).items() if one["slide"] in imaged}
    patients = {name: str(one["patient"]) for name, one in known.items()}
    split = next(one.get("split") or {} for one in config.models() if not is_ensemble(one))
    test, validation = (sections_named(split.get(side) or [], patients) for side in ("test", "validation"))
    given = split.get("train")
    pool = sections_named(given, patients) if given else [name for name in patients if name not in {*test, *validation}]
    largest = max(curve.sections)
    if largest >= len(pool):
        msg = (
            f"pipeline: learning_curve.sections: {largest} is not fewer than the {len(pool)} training sections "
            f"({some(pool)}); the evaluation of all of them is the last point of the curve"
        )
        raise ConfigError(msg)
    slides = tuple(dict.fromkeys(str(known[name]["slide"]) for name in test if name in known))
    orders = {order: shuffled(pool, order) for order in curve.orders}
    return [_point(number, (orders[order][:count], slides), count, order) for number, count, order in _numbered(curve)]


def shuffled(sections: Sequence[str], seed: int) -> tuple[str, ...]:
    """Return the sections in a random order, which depends on their names and the seed alone."""
    import numpy as np  # noqa: PLC0415 -- configs are read without NumPy

    names = sorted(sections)
    return tuple(names[place] for place in np.random.default_rng([seed, 0x1EA12]).permutation(len(names)).tolist())


UNKNOWN_SIDES = ((UNKNOWN,), ())


def _numbered(curve: LearningCurveConfig) -> list[tuple[int, int, int]]:
    """Return number, training sections and order of each point."""
    pairs = [(count, order) for count in sorted(curve.sections) for order in curve.orders]
    return [(number, count, order) for number, (count, order) in enumerate(pairs, 1)]


def _point(number: int, sides: tuple[tuple[str, ...], tuple[str, ...]], count: int, order: int) -> CurvePoint:
    train, slides = sides
    return CurvePoint(number, (), (), slides, train, count=count, order=order)


def _sides(values: Mapping[str, object]) -> str:
    split = values.get("split")
    sides = split if isinstance(split, Mapping) else {}
    return repr([sorted(sides.get(side) or []) for side in SIDES])
