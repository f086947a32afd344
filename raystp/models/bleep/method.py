"""The record of BLEEP."""

from raystp.models.bleep.options import BleepOptions
from raystp.models.contrastive.options import RETRIEVAL_CHOICES
from raystp.models.method import Method

BLEEP = Method(
    name="bleep",
    title="BLEEP",
    options=BleepOptions,
    module="raystp.models.bleep.learner",
    needs_index=True,
    compares_samples=True,
    feature_inputs=(0,),
    choices=RETRIEVAL_CHOICES,
)
"""Contrastive training, then retrieval; Xie et al., NeurIPS 2023, arXiv 2306.01859."""
