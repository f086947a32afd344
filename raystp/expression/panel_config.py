"""The gene panel of a training: a list that is named, or the variable genes of the training sections alone."""

from typing import Annotated, Any, Literal

from pydantic import Field

from raystp.artifacts import Artifact
from raystp.config import Config, Location
from raystp.expression.align import align
from raystp.expression.panel import choose_variable, read_panel
from raystp.expression.schema import read_section
from raystp.storage import StoragePath


class PanelConfig(Config):
    """Which genes to predict."""

    name: str = "variable"
    """Printed with every figure; one that others chose with the test sections in view deserves a name of its own."""

    file: Annotated[str | None, Location()] = None
    """A list of genes: .npy (strings), .txt (a line each) or .json ({"genes": [...]})."""

    variable: int = Field(default=1000, ge=1)
    """Without a file: so many most variable genes of the training sections."""

    absent: Literal["refuse", "drop"] = "refuse"
    """What to do with genes of the file that no training section has measured."""


def choose_panel(config: PanelConfig, spots: Artifact, train: tuple[str, ...]) -> tuple[list[str], dict[str, Any]]:
    """Return the genes, and what the model's record says of them."""
    sections = {name: read_section(spots.path / "sections" / f"{name}.h5ad") for name in train}
    if config.file is None:
        chosen = f"the {config.variable} most variable genes of {', '.join(train)}"
        return choose_variable(sections, config.variable), {"chosen": chosen, "dropped": []}
    wanted = read_panel(StoragePath.of(config.file))
    aligned = align(sections, wanted, training=train, absent=config.absent)
    chosen = f"a list of {len(wanted)} genes that was given"
    return aligned.genes, {"chosen": chosen, "dropped": aligned.dropped, "filled": aligned.filled}
