"""`summary.md` of a prediction: model, protocol and scores, slides and problems, in words for a reader."""

from collections.abc import Sequence

from raystp.evaluate.protocols import EvaluationProtocol
from raystp.steps.impute.slide_table import SlideResult
from raystp.steps.predict.model import PredictModel
from raystp.steps.publish.card import PublishedCard

SHOWN_SLIDES = 1000
"""Slides in the summary's table; `slides.csv` has all."""


def summary_md(
    model: PredictModel, results: Sequence[SlideResult], protocol: EvaluationProtocol, *, folder: str, genes: int
) -> str:
    """Return the summary as Markdown; `folder` is the artifact's folder in its store."""
    done = [one for one in results if one.is_predicted]
    tiles = sum(one.tiles for one in done)
    lines = [
        "# Predicted expression",
        "",
        f"{len(done)} of {len(results)} slides, {tiles:,} tiles, {genes} genes; artifact `{folder}`.",
        "",
        *_model_lines(model),
        f"- Protocol `{protocol.name}`: {protocol.description}",
        "",
        "Each `<slide>.h5ad` has predictions in `X`, in the model's unit, and tile centres in `obsm['spatial']`, in "
        "level-0 px. Predictions are estimates from the image and no measurements.",
        "",
        "## Slides",
        "",
        "| slide | patient | tiles | um/px | far tiles |",
        "|---|---|---|---|---|",
        *(_slide_line(one) for one in done[:SHOWN_SLIDES]),
    ]
    if len(done) > SHOWN_SLIDES:
        lines += ["", f"`slides.csv` has {len(done) - SHOWN_SLIDES} more."]
    if any(one.far_share is not None for one in done):
        lines += ["", "Far tiles are less like the model's reference than 99 % of its own tiles: trust them less."]
    if problems := [one for one in results if one.problem]:
        lines += ["", "## Slides or tiles without a prediction", ""]
        lines += [f"- {one.slide}: {one.problem}" for one in problems]
    return "\n".join([*lines, ""])


def _model_lines(model: PredictModel) -> list[str]:
    encoders = "; ".join(block.sentence for block in model.blocks)
    lines = [f"- Model `{model.name}`", f"- Encoder: {encoders}"]
    if model.published is None:
        return lines
    card = model.published.card
    patients = len(card.training.patients)
    lines += [
        f"- Published from `{card.source}`, a {card.kind} model of {patients} patients; panel: {card.panel}",
        f"- Licence: {card.licence}; of the encoder: {_licences(card)}",
        f"- Unit: {card.normalisation}",
    ]
    lines += [f"- {card.description}"] if card.description else []
    return lines + [f"- Measured by its makers: {one}" for one in _scores(card)]


def _licences(card: PublishedCard) -> str:
    return ", ".join(block.licence or "not known" for block in card.features)


def _scores(card: PublishedCard) -> list[str]:
    """Return the correlations that the card states."""
    return [
        f"{one.metric} {one.value:.3f} on {one.genes} (protocol `{one.protocol}`, n = {one.n:,})"
        for one in card.scores
        if one.metric == "PCC"
    ]


def _slide_line(one: SlideResult) -> str:
    far = "" if one.far_share is None else f"{one.far_share:.1%}"
    mpp = "" if one.mpp is None else f"{one.mpp:.4g}"
    return f"| {one.slide} | {one.patient} | {one.tiles} | {mpp} | {far} |"
