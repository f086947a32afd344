"""Tags by which MLflow groups runs: the protocol, the fold, and the series of folds that a run belongs to.

A pipeline names the artifacts of its folds `<series>-fold<number>`; artifacts that a user names so are grouped too.
Folds count from 1, those of split files (hest-bench) from 0.
"""

import re

PROTOCOL_TAG, FOLD_TAG, SERIES_TAG, REPORT_TAG = "raystp.protocol", "raystp.fold", "raystp.series", "raystp.report"

_FOLD = re.compile(r"^(.+)-fold(0|[1-9]\d*)$")


def group_tags(name: str, protocol: str) -> dict[str, str]:
    """Return the tags of a run by its artifact's name; a run outside any fold has no fold, and is its own series."""
    found = _FOLD.match(name)
    series, fold = found.groups() if found is not None else (name, "")
    return {PROTOCOL_TAG: protocol, SERIES_TAG: series, **({FOLD_TAG: fold} if fold else {})}


def without_fold(model: str, name: str) -> str:
    """Return a model's name without the fold of the artifact `name`, so that all folds have the same metrics."""
    found = _FOLD.match(name)
    return model if found is None else model.removesuffix(f"-fold{found.group(2)}")
