"""What a run must have in common with a published protocol, checked before anything is scored.

Each function raises ConfigError with one sentence: what the protocol fixes, what the run has, and what to change.
"""

from collections.abc import Mapping, Sequence

from raystp.artifacts import Artifact
from raystp.errors import ConfigError, some
from raystp.evaluate.published.protocol import GeneCounts, ProtocolFold, PublishedProtocol
from raystp.expression.labels import Labels
from raystp.expression.sections import load_counts, sections_of
from raystp.steps.evaluate.predictions import Prediction
from raystp.steps.evaluate.published.folds import FoldedModel, check_same_folds


def check_fit(protocol: PublishedProtocol, spots: Artifact, models: Sequence[FoldedModel]) -> None:
    """Raise ConfigError where sections, folds, labels, method or panel are not those of the protocol."""
    check_same_folds(models)
    for model in models:
        for one in model.folds:
            _check_labels(protocol, model, one)
            _check_method(protocol, model, one)
        check_folds(protocol, spots, model)
    check_panel(protocol, spots, models[0].genes)


def sections_in_use(protocol: PublishedProtocol, spots: Artifact) -> dict[str, str]:
    """Return section -> patient of the sections that the protocol uses."""
    known = sections_of(spots)
    return {name: str(known[name]["patient"]) for name in protocol.sections(list(known))}


def check_folds(protocol: PublishedProtocol, spots: Artifact, model: FoldedModel) -> None:
    """Raise ConfigError unless a model's folds are the protocol's, or those that came with the data."""
    patients = sections_in_use(protocol, spots)
    found = [_fold_of(one) for one in model.folds]
    for one, fold in zip(model.folds, found, strict=True):
        _check_slides(protocol, spots, one, fold)
    if protocol.given_folds:
        _check_given(protocol, patients, model, found)
        return
    wanted = {frozenset(fold.test): fold for fold in protocol.folds(patients)}
    for one, fold in zip(model.folds, found, strict=True):
        rule = wanted.get(frozenset(fold.test))
        if rule is None:
            tests = some([f"{', '.join(known.test)}" for known in wanted.values()])
            msg = f"{_subject(protocol, model, one)} tests {some(sorted(fold.test))}; its folds test {tests}"
            raise ConfigError(f"{msg}: train with such a fold, or evaluate without `protocol`")
        _check_train(protocol, model, one, wanted=rule)
    lacking = [", ".join(fold.test) for test, fold in wanted.items() if test not in {frozenset(f.test) for f in found}]
    if lacking and not protocol.one_fold:
        msg = f"{protocol.name}: {model.name} has no prediction of {len(lacking)} of {len(wanted)} folds"
        raise ConfigError(f"{msg} (those that test {some(lacking)}): train and predict them, and add them")


def check_panel(protocol: PublishedProtocol, spots: Artifact, genes: Sequence[str]) -> None:
    """Raise ConfigError unless the panel is the protocol's: of the right size, or the genes of its rule.

    A rule can choose more genes than the size, where some tie.
    """
    size = protocol.panel_size
    if protocol.panel is None or protocol.given_panel:
        if size is not None and len(genes) != size and not _is_larger_by_rule(protocol, spots, genes):
            msg = f"{protocol.name}: the panel has {size} genes, and the models have {len(genes)}: set panel.file to "
            raise ConfigError(f"{msg}the protocol's list ({protocol.data}), and train again")
        return
    wanted = protocol.panel(gene_counts(protocol, spots))
    other, lacking = sorted(set(genes) - set(wanted)), sorted(set(wanted) - set(genes))
    if other or lacking:
        msg = (
            f"{protocol.name}: the panel of these sections has {len(wanted)} genes, and the models have {len(genes)}, "
            f"of which {len(other)} are others ({some(other, 3)}); lacking are {some(lacking, 3)}"
        )
        raise ConfigError(f"{msg}: train with `raystp pipeline --protocol {protocol.name}`, which writes the panel")


def _is_larger_by_rule(protocol: PublishedProtocol, spots: Artifact, genes: Sequence[str]) -> bool:
    """Return whether these are the genes of the protocol's rule, which chose more than its size."""
    if protocol.panel is None or len(genes) < (protocol.panel_size or 0):
        return False
    return set(genes) == set(protocol.panel(gene_counts(protocol, spots)))


def gene_counts(protocol: PublishedProtocol, spots: Artifact) -> Mapping[str, GeneCounts]:
    """Return all genes of the sections that a panel's rule reads."""
    counts = {name: load_counts(spots, name) for name in sections_in_use(protocol, spots)}
    return {name: GeneCounts(tuple(one.genes), one.matrix) for name, one in counts.items()}


def _check_given(
    protocol: PublishedProtocol, patients: Mapping[str, str], model: FoldedModel, found: Sequence[ProtocolFold]
) -> None:
    """Raise ConfigError where folds that came with the data overlap, or leak."""
    tested = [name for fold in found for name in fold.test]
    if twice := sorted({name for name in tested if tested.count(name) > 1}):
        msg = f"{protocol.name}: several folds of {model.name} test {some(twice)}; each section is tested once"
        raise ConfigError(f"{msg}: give the predictions of one set of folds")
    for one, fold in zip(model.folds, found, strict=True):
        shared = {patients[name] for name in fold.test} & {patients[name] for name in (*fold.train, *fold.validation)}
        if shared:
            msg = f"{_subject(protocol, model, one)} has patient {some(sorted(shared))} on both sides"
            raise ConfigError(f"{msg}: hold out whole patients (split.protocol=patient)")
        if {*fold.train, *fold.validation, *fold.test} != {*found[0].train, *found[0].validation, *found[0].test}:
            msg = f"{_subject(protocol, model, one)} has other sections than fold {model.numbers[0]}"
            raise ConfigError(f"{msg}: each fold trains on all sections of the task that it does not test")


def _check_train(protocol: PublishedProtocol, model: FoldedModel, one: Prediction, *, wanted: ProtocolFold) -> None:
    """Raise ConfigError unless the training side, with what chose the epoch, is the protocol's."""
    own = {*one.meta["train"], *one.meta["validation"]}
    other, lacking = sorted(own - set(wanted.train)), sorted(set(wanted.train) - own)
    if other or lacking:
        msg = f"{_subject(protocol, model, one)} trains on {len(own)} sections, the protocol on {len(wanted.train)}"
        parts = [f"without {some(lacking)}"] * bool(lacking) + [f"with {some(other)}"] * bool(other)
        raise ConfigError(f"{msg}: this one is {' and '.join(parts)}; set split.train to the protocol's sections")


def _check_slides(protocol: PublishedProtocol, spots: Artifact, one: Prediction, fold: ProtocolFold) -> None:
    known = sections_of(spots)
    if unknown := sorted({*fold.test, *fold.train, *fold.validation} - set(known)):
        msg = f"{protocol.name}: the model of {one.prediction.path} knows {some(unknown)}, and {spots.path} does not"
        raise ConfigError(f"{msg}: set `spots` to those that the models were trained on")
    slides = set(one.slides)
    if lacking := [name for name in fold.test if known[name]["slide"] not in slides]:
        msg = f"{protocol.name}: {one.prediction.path} has no prediction of the test sections {some(lacking)}"
        raise ConfigError(f"{msg}: run `raystp impute` on their slides")


def _check_labels(protocol: PublishedProtocol, model: FoldedModel, one: Prediction) -> None:
    """Raise ConfigError for a model that was trained on other labels."""
    if one.learned_from_cases or "completed" in one.meta:
        kind = "labels of whole cases" if one.learned_from_cases else "completed labels"
        msg = f"{_subject(protocol, model, one)} was trained on {kind}, the protocol's are measured spots: train again"
        raise ConfigError(msg)
    own, wanted = Labels.of(one.meta), Labels(**protocol.train.get("labels", {}))
    if own != wanted:
        setting = wanted.changed or "the defaults"
        msg = f"{_subject(protocol, model, one)} was trained on {own.sentence}; the protocol has {wanted.sentence}"
        raise ConfigError(f"{msg}: train again with `labels` {setting}")


def _check_method(protocol: PublishedProtocol, model: FoldedModel, one: Prediction) -> None:
    """Raise ConfigError for the protocol's own method with other options, which are another protocol."""
    kind = protocol.method.get("model")
    config = one.model.manifest.config
    if kind is None or config.get("model") != kind:
        return
    own = config.get(kind, {})
    for key, right in protocol.method[kind].items():
        if own.get(key) != right:
            msg = f"{_subject(protocol, model, one)} has {kind}.{key}={own.get(key)}, the protocol has {right}"
            raise ConfigError(f"{msg}: train again, or choose the protocol of that value")


def _fold_of(one: Prediction) -> ProtocolFold:
    return ProtocolFold(tuple(one.meta["train"]), tuple(one.meta["test"]), tuple(one.meta["validation"]))


def _subject(protocol: PublishedProtocol, model: FoldedModel, one: Prediction) -> str:
    return f"{protocol.name}: {model.name}, {one.name},"
