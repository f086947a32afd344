"""A bank that changes: sections that come, patients who go. The change is a new index; the old one may be deleted."""

from typing import Any

from raystp.artifacts import MANIFEST, Artifact, begin, find, open_place
from raystp.cluster.progress import say
from raystp.errors import ArtifactError, some
from raystp.index import change
from raystp.index.bank import open_bank
from raystp.index.reference import Reference
from raystp.steps.index_config import IndexConfig
from raystp.steps.index_parts import contrastive, placed
from raystp.steps.pairs import sections_of
from raystp.steps.training_set import Stack, join, stack
from raystp.storage import Place

STEP = "index"


def added(config: IndexConfig, base: Artifact) -> Artifact:
    """Leave the base with further sections."""
    store = config.run.store
    spots, embed = find(store, str(config.spots), "spots"), find(store, str(config.embeddings), "embed")
    model = open_place(Place.of(store) / base.manifest.notes["model"], "train")
    draft = begin(config, STEP, {"base": base, "spots": spots, "embeddings": embed, "model": model})
    if isinstance(draft, Artifact):
        return draft
    names = config.reference or []
    _check_new(base, names)
    ready = contrastive(model.place)
    rows = stack([join(spots, embed, name) for name in names], tuple(ready.genes))
    vectors, _ = placed(ready, rows, base.manifest.notes["vectors"])
    reference = _reference(rows, vectors, spots, list(ready.genes))
    described = change.extend(
        base.place, base.manifest.notes["bank"], reference, draft.place, shards=config.shards or 1
    )
    say(f"index: {len(rows.spots)} spots of {some(names)} added to {base.manifest.folder}")
    return draft.finish(*_told(described, base, [*base.manifest.notes["slides"], *rows.slides]))


def removed(config: IndexConfig, base: Artifact) -> Artifact:
    """Leave the base without some patients, and say what else still holds them."""
    draft = begin(config, STEP, {"base": base})
    if not isinstance(draft, Artifact):
        described = change.remove(base.place, base.manifest.notes["bank"], config.without, draft.place)
        bank = open_bank(draft.place, described, only=())
        slides = sorted(set(bank.rows["slide"].to_pylist()))
        draft = draft.finish(*_told(described, base, slides))
        say(f"index: {some(config.without)} removed; {draft.manifest.rows['rows']} spots are left")
    older = _older(config, base)
    if config.run.delete_base:
        for one in older:
            one.place.remove()
            say(f"  deleted {one.place}")
    elif older:
        say(f"  {some([str(one.place) for one in older])} still hold them: --set run.delete_base=true deletes those")
    model = base.manifest.notes["model"]
    say(f"  models, spots and embeddings are not touched: {model} may have learned from them")
    return draft


def _check_new(base: Artifact, names: list[str]) -> None:
    there = [name for name in names if name in base.manifest.notes["bank"]["sections"]]
    if there:
        msg = f"reference: {some(there)} are in {base.manifest.folder} already: a spot is in a bank once"
        raise ArtifactError(msg)


def _reference(rows: Stack, vectors: Any, spots: Artifact, genes: list[str]) -> Reference:
    known = sections_of(spots)
    of = [rows.sections[number] for number in rows.group.tolist()]
    return Reference(
        vectors=vectors,
        expression=rows.expression,
        genes=genes,
        sections=of,
        spots=list(rows.spots),
        patients=[str(known[name]["patient"]) for name in of],
        more={"slide": [str(known[name]["slide"]) for name in of]},
    )


def _told(
    described: dict[str, Any], base: Artifact, slides: list[str]
) -> tuple[dict[str, int], list[Any], dict[str, Any]]:
    """Return rows, failures and notes of a changed index."""
    notes = {**base.manifest.notes, "bank": described, "patients": described["patients"], "slides": slides}
    rows = sum(one["rows"] for one in described["shards"])
    return {"rows": rows, "shards": len(described["shards"])}, [], {**notes, "base": base.manifest.folder}


def _older(config: IndexConfig, base: Artifact) -> list[Artifact]:
    """Return the base and what it was made from in turn, as far as they are there and hold any of the patients."""
    found, one, store = [], base, Place.of(config.run.store)
    while True:
        if set(config.without) & set(one.manifest.notes["patients"]):
            found.append(one)
        before = one.manifest.notes.get("base")
        if before is None or not (store / before / MANIFEST).exists():
            return found
        one = open_place(store / before, STEP)
