"""Which genes to predict: the part of a config that `panel.choose_panel` reads."""

from typing import Annotated, Literal

from pydantic import Field

from raystp.config import Config, Location

Absent = Literal["mask", "drop", "common", "refuse"]


class PanelConfig(Config):
    """The genes to predict."""

    name: str = "variable"
    """Printed with every score. Give a panel that others chose on the test sections a name of its own."""

    file: Annotated[str | None, Location()] = None
    """A list of genes: .npy (strings), .txt (one per line, `# remarks`) or .json ({"genes": [...]} or a list)."""

    variable: Annotated[int, Field(ge=1)] | Literal["all"] = 1000
    """Without a file: the number of most variable genes among those that every training section measured. `all`: every
    gene of a table of whole cases, in its order."""

    absent: Absent = "mask"
    """Genes of the file that a training section has not measured. `mask`: such a section is left out of the gene's
    loss, and a gene that no section measured is an error; `drop`: the same, but a gene that no section measured is left
    out of the panel; `common`: only genes that every section measured stay; `refuse`: either is an error."""
