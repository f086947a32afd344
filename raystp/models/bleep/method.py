"""The record of BLEEP."""

from raystp.models.bleep.options import BAG_FIT, BAG_TILES, BagBleepOptions, BleepOptions
from raystp.models.contrastive.options import RETRIEVAL_CHOICES
from raystp.models.method import CasesTraining, Method

BLEEP = Method(
    name="bleep",
    title="BLEEP",
    options=BleepOptions,
    module="raystp.models.bleep.learner",
    on_cases=CasesTraining(fit=lambda _: BAG_FIT, options=BagBleepOptions, bag_tiles=BAG_TILES),
    needs_index=True,
    compares_samples=True,
    feature_inputs=(0,),
    choices=RETRIEVAL_CHOICES,
)
"""Contrastive training, then retrieval; Xie et al., NeurIPS 2023, arXiv 2306.01859.

On whole cases: the contrastive model of Gustafsson and Rantalainen, arXiv 2410.00945.
"""
