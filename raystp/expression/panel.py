"""Gene panels: the genes that a model predicts, chosen on TRAINING sections alone or read from a file.

A panel from a file is matched with the genes of the training sections. A gene that no training section has cannot be
learned: it is an error, or it is dropped. A gene that only some sections lack counts as 0 there.
"""

import difflib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import anndata as ad
import numpy as np
from pydantic import Field

from raystp.artifacts import Artifact
from raystp.config import Config, Location
from raystp.errors import PanelError, some
from raystp.expression.schema import read_section
from raystp.expression.variable import most_variable_genes
from raystp.storage import StoragePath

MAX_SUGGESTIONS = 5
"""With more unknown genes than this, the names are probably of another kind, and no close names are listed."""


class PanelConfig(Config):
    """The genes to predict."""

    name: str = "variable"
    """Printed with every score. Give a panel that others chose on the test sections a name of its own."""

    file: Annotated[str | None, Location()] = None
    """A list of genes: .npy (strings), .txt (one per line) or .json ({"genes": [...]})."""

    variable: int = Field(default=1000, ge=1)
    """Without a file: the number of most variable genes of the training sections."""

    absent: Literal["refuse", "drop"] = "refuse"
    """Genes of the file that no training section has measured: `refuse` is an error, `drop` leaves them out."""


@dataclass(frozen=True)
class PanelMatch:
    """A panel matched with sections."""

    genes: list[str]
    """The genes that at least one section has, in the order of the panel."""
    dropped: list[str]
    """The genes that no section has, with `absent="drop"`."""
    filled: dict[str, int]
    """Section -> number of genes in `genes` that it lacks; they count as 0 there. Complete sections are left out."""


def choose_panel(config: PanelConfig, spots: Artifact, train: tuple[str, ...]) -> tuple[list[str], dict[str, object]]:
    """Return the genes, and the entry about them in the model's metadata."""
    sections = {name: read_section(spots.path / "sections" / f"{name}.h5ad") for name in train}
    if config.file is None:
        chosen = f"the {config.variable} most variable genes of {', '.join(train)}"
        return most_variable_genes(sections, config.variable), {"chosen": chosen, "dropped": []}
    genes = read_panel(StoragePath.of(config.file))
    match = match_panel(genes, sections, absent=config.absent)
    chosen = f"a given list of {len(genes)} genes"
    return match.genes, {"chosen": chosen, "dropped": match.dropped, "filled": match.filled}


def match_panel(
    genes: Sequence[str], training: Mapping[str, ad.AnnData], *, absent: Literal["refuse", "drop"] = "refuse"
) -> PanelMatch:
    """Match a panel with the genes of the training sections.

    Raises PanelError without sections, for a gene that no section has with `absent="refuse"`, and where no gene of the
    panel is in any section.
    """
    if not training:
        msg = "a panel is matched with training sections, and none are given: name at least one"
        raise PanelError(msg)
    known = {str(gene) for section in training.values() for gene in section.var_names}
    missing = [gene for gene in genes if gene not in known]
    if missing and (absent == "refuse" or len(missing) == len(genes)):
        raise PanelError(missing_genes_message(missing, len(genes), sorted(known)))
    kept = [gene for gene in genes if gene in known]
    lacking = {name: len(set(kept) - set(section.var_names)) for name, section in training.items()}
    return PanelMatch(kept, missing, {name: count for name, count in lacking.items() if count})


def missing_genes_message(missing: list[str], total: int, known: list[str]) -> str:
    """Return the error message for genes that no training section has, with close names where there are few."""
    message = f"{len(missing)} of {total} genes of the panel are in no training section: {some(missing)}"
    if len(missing) > MAX_SUGGESTIONS:
        return (
            f"{message}; check that the panel uses the same gene names as the sections ({some(known, 3)}), "
            "or set absent='drop' to leave these genes out"
        )
    return f"{message}; {close_names(missing, known)}set absent='drop' to leave them out"


def close_names(missing: list[str], known: list[str]) -> str:
    """Return `did you mean ...? ` with the closest known name of each missing one, or an empty text."""
    close = {gene: difflib.get_close_matches(gene, known, n=1) for gene in missing[:MAX_SUGGESTIONS]}
    hints = ", ".join(f"{found[0]!r} for {gene!r}" for gene, found in close.items() if found)
    return f"did you mean {hints}? " if hints else ""


def read_panel(path: StoragePath) -> list[str]:
    """Return the genes of a `.npy` (plain strings), `.txt` (one per line) or `.json` (`{"genes": [...]}`, as HEST's).

    Raises PanelError for another suffix, for a file that does not have its format, and for a duplicate gene.
    """
    suffix = path.name.rpartition(".")[2].lower()
    if suffix not in {"npy", "txt", "json"}:
        msg = f"{path} is not a gene panel: expected a .npy of strings, a .txt with one gene per line, or a .json "
        raise PanelError(msg + "with 'genes'")
    content = path.read_bytes()
    try:
        genes = {"npy": _parse_npy, "txt": _parse_txt, "json": _parse_json}[suffix](content)
    except (ValueError, EOFError, MemoryError, KeyError, TypeError) as error:
        msg = f"{path} cannot be read as a gene panel: {type(error).__name__}: {error}"
        raise PanelError(msg) from None
    if not genes:
        msg = f"{path} contains no genes"
        raise PanelError(msg)
    duplicates = sorted({gene for gene in genes if genes.count(gene) > 1}) if len(set(genes)) < len(genes) else []
    if duplicates:
        msg = f"{path} contains {len(duplicates)} genes more than once: {some(duplicates)}"
        raise PanelError(msg)
    return genes


def _parse_npy(content: bytes) -> list[str]:
    array = np.load(io.BytesIO(content), allow_pickle=False)
    if array.ndim != 1 or array.dtype.kind != "U":
        msg = f"it holds a {array.ndim}-dimensional array of {array.dtype}, not a list of strings"
        raise ValueError(msg)
    return [str(gene) for gene in array.tolist()]


def _parse_txt(content: bytes) -> list[str]:
    return [line.strip() for line in content.decode("utf-8").splitlines() if line.strip()]


def _parse_json(content: bytes) -> list[str]:
    genes = json.loads(content)["genes"]
    if not isinstance(genes, list) or not all(isinstance(gene, str) for gene in genes):
        msg = "'genes' is not a list of strings"
        raise TypeError(msg)
    return genes
