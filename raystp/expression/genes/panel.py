"""Gene panels: the genes that a model predicts, chosen on TRAINING sections alone or read from a file.

A panel from a file is matched with the genes of the training sections, by name or by Ensembl id. A gene that no
training section has cannot be learned: it is an error, or it is dropped. A gene that only some sections lack is missing
there, never 0: it is left out of the loss of these sections, or refused.
"""

import difflib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import anndata as ad
import numpy as np
from jaxtyping import Int64

from raystp.artifacts import Artifact
from raystp.errors import PanelError, some
from raystp.expression.genes.names import Aliases, GeneNames, check_shared, gene_aliases, kind_of
from raystp.expression.genes.panel_config import Absent, PanelConfig
from raystp.expression.genes.variable import most_variable_genes
from raystp.expression.schema import read_section
from raystp.expression.sections import gene_names_of, sections_of
from raystp.storage import StoragePath
from raystp.storage.text_files import decode_text, read_list, trimmed

MAX_SUGGESTIONS = 5
"""With more unknown genes than this, the names are probably of another kind, and no close names are listed."""


@dataclass(frozen=True)
class PanelMatch:
    """A panel matched with sections."""

    genes: list[str]
    """The genes that stay, in the order of the panel."""
    dropped: list[str]
    """The genes that are left out, with `absent="drop"` or `absent="common"`."""
    unmeasured: dict[str, list[str]]
    """Section -> the genes in `genes` that it has not measured. Complete sections are left out."""


def choose_panel(
    config: PanelConfig, spots: Artifact, train: tuple[str, ...], *, zero_absent: bool = False
) -> tuple[list[str], dict[str, object]]:
    """Return the genes, and the entry about them in the model's metadata.

    `zero_absent` says that the label of an unmeasured gene is 0: a gene of the file that no section measured stays.
    Raises PanelError and SectionError where the training sections do not fit the panel, or each other.
    """
    sections = {name: read_section(spots.path / "sections" / f"{name}.h5ad") for name in train}
    if config.file is None and config.variable == "all":
        msg = "panel.variable: all genes are for labels of whole cases (targets: cases); set a number, or panel.file"
        raise PanelError(msg)
    if config.file is None:
        assert config.variable != "all"  # refused above
        chosen = f"the {config.variable} most variable genes of {', '.join(train)}, of those that all measured"
        return most_variable_genes(sections, config.variable), {"chosen": chosen, "dropped": []}
    genes = read_panel(StoragePath.of(config.file))
    absent: Absent | Literal["zero"] = "zero" if zero_absent and config.absent == "mask" else config.absent
    match = match_panel(genes, sections, absent=absent, aliases=panel_aliases(spots, genes))
    unmeasured = {name: len(lacking) for name, lacking in match.unmeasured.items()}
    chosen = f"a given list of {len(genes)} genes"
    return match.genes, {"chosen": chosen, "dropped": match.dropped, "unmeasured": unmeasured}


def panel_aliases(spots: Artifact, genes: Sequence[str]) -> dict[str, list[str]]:
    """Return the other names of a panel's genes, as the sections of the spots give them."""
    return gene_aliases(genes, gene_names_of(spots, sections_of(spots)).values())


def match_panel(
    genes: Sequence[str],
    training: Mapping[str, ad.AnnData],
    *,
    absent: Absent | Literal["zero"] = "mask",
    aliases: Aliases | None = None,
) -> PanelMatch:
    """Match a panel with the genes of the training sections; with `zero` all genes stay, if a section has any.

    Raises PanelError without sections, for a gene that `absent` does not allow, and where no gene is left. Raises
    SectionError for a section whose genes have other names.
    """
    if not training:
        msg = "a panel is matched with training sections, and none are given: name at least one"
        raise PanelError(msg)
    names = {name: GeneNames.of(section) for name, section in training.items()}
    aliases = gene_aliases(genes, names.values()) if aliases is None else aliases
    found = {name: own.find(genes, aliases) for name, own in names.items()}
    has = np.stack([columns >= 0 for columns in found.values()])
    missing = [gene for gene, any_has in zip(genes, np.any(has, axis=0), strict=True) if not any_has]
    if missing and (absent in {"mask", "refuse"} or len(missing) == len(genes)):
        known = sorted({gene for own in names.values() for gene in own.names})
        raise PanelError(missing_genes_message(missing, len(genes), known))
    present = [gene for gene in genes if gene not in missing]
    for name, own in names.items():
        others = (other for key, other in names.items() if key != name)
        check_shared(name, own, present, own.find(present, aliases), others=others)
    partial = [gene for gene, all_have in zip(genes, np.all(has, axis=0), strict=True) if not all_have]
    if partial and absent == "refuse":
        raise PanelError(_partial_genes_message(genes, partial, found))
    left_out = set(partial if absent == "common" else [] if absent == "zero" else missing)
    kept = [gene for gene in genes if gene not in left_out]
    if not kept:
        msg = f"panel.absent={absent}: none of the {len(genes)} genes of the panel is measured in each of "
        raise PanelError(msg + f"{some(list(training))}; set panel.absent=mask, or leave sections out with split.train")
    lacking = {name: _lacking(genes, columns, left_out) for name, columns in found.items()}
    dropped = [gene for gene in genes if gene in left_out]
    return PanelMatch(kept, dropped, {name: absent_genes for name, absent_genes in lacking.items() if absent_genes})


def _lacking(genes: Sequence[str], found: Int64[np.ndarray, "gene"], left_out: set[str]) -> list[str]:
    return [gene for gene, column in zip(genes, found.tolist(), strict=True) if column < 0 and gene not in left_out]


def _partial_genes_message(
    genes: Sequence[str], partial: list[str], found: Mapping[str, Int64[np.ndarray, "gene"]]
) -> str:
    lacking = {name: len(_lacking(genes, columns, set())) for name, columns in found.items()}
    counts = ", ".join(f"{name} lacks {count}" for name, count in lacking.items() if count)
    return (
        f"{len(partial)} of {len(genes)} genes of the panel are not measured in every training section ({counts}): "
        f"{some(partial)}. panel.absent=refuse does not allow that: set panel.absent=mask (leave these sections out of "
        "the gene's loss) or panel.absent=common (leave the genes out)"
    )


def missing_genes_message(missing: list[str], total: int, known: list[str]) -> str:
    """Return the error message for genes that no training section has, with close names where there are few."""
    message = f"{len(missing)} of {total} genes of the panel are in no training section: {some(missing)}"
    if len(missing) > MAX_SUGGESTIONS:
        return (
            f"{message}; check that the panel uses the same gene names as the sections (the panel has "
            f"{kind_of(missing)}, the sections have {kind_of(known)} such as {some(known, 3)}), or set "
            "panel.absent=drop to leave these genes out"
        )
    return f"{message}; {close_names(missing, known)}set panel.absent=drop to leave them out"


def close_names(missing: list[str], known: list[str]) -> str:
    """Return `did you mean ...? ` with the closest known name of each missing one, or an empty text."""
    close = {gene: difflib.get_close_matches(gene, known, n=1) for gene in missing[:MAX_SUGGESTIONS]}
    hints = ", ".join(f"{found[0]!r} for {gene!r}" for gene, found in close.items() if found)
    return f"did you mean {hints}? " if hints else ""


def read_panel(path: StoragePath) -> list[str]:
    """Return the genes of a `.npy` (strings), `.txt` (one per line) or `.json` (a list, or HEST's `{"genes": [...]}`).

    Raises PanelError for another suffix, for a file that does not have its format, and for a duplicate gene.
    """
    suffix = path.name.rpartition(".")[2].lower()
    if suffix not in {"npy", "txt", "json"}:
        msg = f"{path} is not a gene panel: expected a .npy of strings, a .txt with one gene per line, or a .json "
        raise PanelError(msg + "with 'genes'")
    try:
        genes = {"npy": _parse_npy, "txt": _parse_txt, "json": _parse_json}[suffix](path)
    except PanelError:
        raise
    except Exception as error:  # noqa: BLE001 -- a damaged file may raise anything in numpy or json
        msg = f"{path} cannot be read as a gene panel: {type(error).__name__}: {error}"
        raise PanelError(msg) from None
    if not all(genes):
        msg = f"{path} contains {genes.count('')} names that are empty"
        raise PanelError(msg)
    if not genes:
        msg = f"{path} contains no genes"
        raise PanelError(msg)
    duplicates = sorted({gene for gene in genes if genes.count(gene) > 1}) if len(set(genes)) < len(genes) else []
    if duplicates:
        msg = f"{path} contains {len(duplicates)} genes more than once: {some(duplicates)}"
        raise PanelError(msg)
    return genes


def _parse_npy(path: StoragePath) -> list[str]:
    array = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
    if array.ndim != 1 or array.dtype.kind != "U":
        msg = f"it holds a {array.ndim}-dimensional array of {array.dtype}, not a list of strings"
        raise ValueError(msg)
    return [trimmed(str(gene)) for gene in array.tolist()]


def _parse_txt(path: StoragePath) -> list[str]:
    return [gene for _, gene in read_list(path, error=PanelError)]


def _parse_json(path: StoragePath) -> list[str]:
    parsed = json.loads(decode_text(path.read_bytes(), str(path), PanelError))
    genes = parsed.get("genes") if isinstance(parsed, dict) else parsed
    if not isinstance(genes, list) or not all(isinstance(gene, str) and trimmed(gene) for gene in genes):
        msg = "'genes' is not a list of strings"
        raise TypeError(msg)
    return [trimmed(gene) for gene in genes]
