"""A published protocol in a pipeline: it gives sections, folds, panel, labels and retrieval, and scores all folds.

What a config states beside it must fit, so that a wrong value is found before the first slide is read.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from raystp.digests import digest_of
from raystp.errors import ConfigError
from raystp.evaluate.published.protocol import PublishedProtocol
from raystp.evaluate.published.registry import published_protocol
from raystp.expression.labels import Labels
from raystp.expression.sections import sections_of
from raystp.models.methods import METHODS
from raystp.steps.evaluate.published.checks import gene_counts, sections_in_use
from raystp.steps.pipeline.config import PipelineConfig, Values, group_of, is_ensemble, method_of, over
from raystp.steps.pipeline.folds.fold import UNKNOWN, Fold, folds_of, planned_folds

if TYPE_CHECKING:
    import raystp.artifacts
    import raystp.storage

PANELS = "panels"
"""Folder of a store with the panels that protocols chose, `<protocol>-<digest>.txt`."""


def own_training(name: str) -> list[Values]:
    """Return the training of the method that a protocol was made for; none where there is no such method."""
    method = published_protocol(name).method
    return [{"model": method["model"]}] if "model" in method else []


def with_protocol(name: str, values: Values) -> Values:
    """Return a training with the labels, the method's options and the retrieval of a protocol; its own come first."""
    protocol = published_protocol(name)
    if is_ensemble(values):
        return values
    kind = method_of(values)
    fixed: Values = dict(protocol.train)
    if protocol.method.get("model") == kind:
        fixed[kind] = dict(protocol.method[kind])
    if (method := METHODS.get(kind)) is not None and method.needs_index and protocol.retrieval:
        fixed["retrieval"] = dict(protocol.retrieval)
    return over(fixed, values)


def check_protocol(config: PipelineConfig) -> None:
    """Raise ConfigError, with all faults, for a config that contradicts its protocol."""
    protocol = published_protocol(str(config.protocol))
    faults = []
    if config.folds is not None and not (protocol.given_folds and config.folds.files is not None):
        allowed = "give only `folds.files`, the folds of the data" if protocol.given_folds else "remove `folds`"
        faults.append(f"folds: the protocol says who is held out; {allowed}")
    for one in config.models():
        faults += [f"train {one['name']}: {fault}" for fault in _training_faults(protocol, one)]
    if faults:
        raise ConfigError("\n".join(f"pipeline: protocol {protocol.name}: {fault}" for fault in faults))


def _training_faults(protocol: PublishedProtocol, values: Values) -> list[str]:
    if values.get("targets", "spots") != "spots":
        return ["it learns from cases, and the protocol's labels are measured spots"]
    if is_ensemble(values):
        return []
    faults = []
    wanted = {"labels": Labels(**protocol.train.get("labels", {})).record}
    if (kind := method_of(values)) == protocol.method.get("model"):
        wanted[kind] = protocol.method[kind]
    for key, fixed in wanted.items():
        faults += [
            f"{key}.{field}={value}: the protocol's is {fixed[field]}"
            for field, value in group_of(values, key).items()
            if field in fixed and value != fixed[field]
        ]
    has_file = bool(group_of(values, "panel").get("file"))
    if protocol.panel is None and not has_file:
        faults.append(f"panel.file: set it to the protocol's list of {protocol.panel_size} genes ({protocol.data})")
    if protocol.panel is not None and not protocol.given_panel and values.get("panel"):
        faults.append("panel: the protocol chooses it from the sections; remove it")
    return faults


def planned_protocol_folds(config: PipelineConfig) -> list[Fold]:
    """Return the folds as far as they are known before any slide is read."""
    protocol = published_protocol(str(config.protocol))
    if config.folds is not None:
        return planned_folds(config)
    return [Fold(1, (UNKNOWN,), (), (), protocol=protocol.split)]


def protocol_folds(
    config: PipelineConfig,
    measured: "raystp.artifacts.Artifact",
    embeddings: Sequence[str],
    panels: "raystp.storage.StoragePath",
) -> list[Fold]:
    """Return the protocol's folds on the measured sections; its panel is written below `panels`.

    Raises ConfigError or PanelError for sections that do not suffice.
    """
    protocol = published_protocol(str(config.protocol))
    if config.folds is not None:
        folds = folds_of(config, measured, embeddings)
    else:
        known = sections_of(measured)
        folds = [
            Fold(
                number,
                one.test,
                one.validation,
                tuple(dict.fromkeys(str(known[name]["slide"]) for name in one.test)),
                one.train,
                protocol.split,
            )
            for number, one in enumerate(protocol.folds(sections_in_use(protocol, measured)), 1)
        ]
    needs_panel = any("panel" not in one for one in config.models() if not is_ensemble(one))
    if not needs_panel or all(one.panel is not None for one in folds):
        return folds
    panel = _panel(protocol, measured, panels)
    return [one if one.panel is not None else replace(one, panel=panel) for one in folds]


def _panel(
    protocol: PublishedProtocol, measured: "raystp.artifacts.Artifact", panels: "raystp.storage.StoragePath"
) -> dict[str, Any]:
    """Choose the protocol's panel, write it, and return the part of a training that names it."""
    assert protocol.panel is not None  # `check_protocol` has seen a file otherwise
    genes = protocol.panel(gene_counts(protocol, measured))
    path = panels / f"{protocol.name}-{digest_of(genes)[:12]}.txt"
    if not path.exists():
        path.write_bytes("".join(f"{gene}\n" for gene in genes).encode())
    return {"name": protocol.name, "file": path.uri}
