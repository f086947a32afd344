"""The record of NH2ST."""

from collections.abc import Mapping

from raystp.models.method import Method
from raystp.models.nh2st.options import NH2ST_FIT, UNVALIDATED_EPOCHS, Nh2stOptions


def _why_frozen(options: Mapping[str, object]) -> str:
    tokens = options.get("tokens", 1)
    return "" if tokens == 1 else f"nh2st.tokens={tokens} reads a map, and a trained encoder gives one row: set it to 1"


NH2ST = Method(
    name="nh2st",
    title="NH2ST",
    options=Nh2stOptions,
    module="raystp.models.nh2st.learner",
    published_fit=lambda _: NH2ST_FIT,
    unvalidated_epochs=UNVALIDATED_EPOCHS,
    tokens=lambda options: options.tokens if options.tokens > 1 else 0,
    compares_samples=True,
    feature_inputs=(0, 1),
    why_frozen=_why_frozen,
    choices={
        "nh2st.neighbours_at_inference": (False, True),
        "nh2st": ({"weight_query": 1.0, "weight_neighbour": 0.5}, {"weight_query": 0.0, "weight_neighbour": 0.0}),
    },
    small={"nh2st": {"dim": 128, "dropout": 0.2}, "fit": {"epochs": 60, "batch_size": 64, "lr": 2e-3}},
)
"""Dual-scale contrast with neighbours; Qu et al., MICCAI 2025, arXiv 2506.23827."""
