"""`slides.csv` beside the predictions: a row per slide, with what a reader of a cohort's predictions asks first."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

from raystp import tables
from raystp.artifacts import Artifact, open_artifact
from raystp.expression.embeddings.join import blocks_of

SLIDES_CSV = "slides.csv"


@dataclass(frozen=True)
class SlideResult:
    """A row of `slides.csv`; its fields are the columns."""

    slide: str
    patient: str
    tiles: int
    """Predicted tiles."""
    mpp: float | None
    """um/px of the scan."""
    tile_um: float
    encoder: str
    model: str
    far_share: float | None
    """Share of tiles that are less like the reference than 99 % of its own tiles; None without a reference index."""
    problem: str
    """Why there is no prediction, or why some of its tiles have none."""

    @property
    def is_predicted(self) -> bool:
        """Whether the slide has a prediction."""
        return self.tiles > 0


@dataclass(frozen=True)
class PredictedTiles:
    """The tiles of a predicted slide, and how many of them are far from the reference; None if that is unknown."""

    tiles: int
    far: int | None

    @property
    def far_share(self) -> float | None:
        """Share of far tiles."""
        return None if self.far is None or not self.tiles else round(self.far / self.tiles, 6)


def imputed_slides(
    embeddings: Artifact,
    model: Artifact,
    predicted: Mapping[str, PredictedTiles],
    failures: Sequence[Mapping[str, object]],
) -> list[SlideResult]:
    """Return a row per predicted slide, in their order, then those that failed."""
    notes = embeddings.manifest.notes
    patients: Mapping[str, str] = notes["patients"]
    reasons = {str(row["slide"]): f"{row['stage']}: {row['reason']}" for row in failures}
    mpp = _mpp(embeddings)
    encoder = " + ".join(str(one.manifest.notes["encoder"]["name"]) for one in blocks_of(embeddings))
    return [
        SlideResult(
            slide=slide,
            patient=patients.get(slide, ""),
            tiles=predicted[slide].tiles if slide in predicted else 0,
            mpp=mpp.get(slide),
            tile_um=float(notes["side"]),
            encoder=encoder,
            model=model.manifest.folder,
            far_share=predicted[slide].far_share if slide in predicted else None,
            problem=reasons.get(slide, ""),
        )
        for slide in [*predicted, *(slide for slide in reasons if slide not in predicted)]
    ]


def slides_csv(results: Sequence[SlideResult]) -> bytes:
    """Return the table as CSV; a missing number is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(SlideResult)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(one) for one in results)
    return text.getvalue().encode()


def _mpp(embeddings: Artifact) -> dict[str, float]:
    """Return the um/px of each slide; none where the tiles are no longer in the store."""
    path = embeddings.noted(embeddings.manifest.notes["tiles"])
    if not path.exists():
        return {}
    rows = open_artifact(path, "tile").table("slides.parquet", tables.SLIDES, ["slide", "mpp"]).to_pylist()
    return {row["slide"]: row["mpp"] for row in rows}
