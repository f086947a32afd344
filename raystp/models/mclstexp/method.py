"""The record of mclSTExp."""

from raystp.models.contrastive.options import RETRIEVAL_CHOICES
from raystp.models.mclstexp.options import MCLSTEXP_FIT, MclstexpOptions
from raystp.models.method import Method

MCLSTEXP = Method(
    name="mclstexp",
    title="mclSTExp",
    options=MclstexpOptions,
    module="raystp.models.mclstexp.learner",
    published_fit=lambda _: MCLSTEXP_FIT,
    needs_index=True,
    compares_samples=True,
    feature_inputs=(0,),
    choices=RETRIEVAL_CHOICES,
    small={"mclstexp": {"layers": 1, "heads": 2}, "fit": {"epochs": 40, "lr": 1e-3}},
)
"""Contrast with a transformer over spots, then retrieval; Min et al., Briefings in Bioinformatics 2024."""
