"""The record of attention regression."""

from raystp.models.attention.options import ATTENTION_FIT, EMBEDDING_FIT, AttentionOptions, gene_bytes
from raystp.models.method import CasesTraining, Method

ATTENTION = Method(
    name="attention",
    title="attention regression",
    options=AttentionOptions,
    module="raystp.models.attention.learner",
    published_fit=lambda _: ATTENTION_FIT,
    on_cases=CasesTraining(
        fit=lambda options: EMBEDDING_FIT if options.get("level") == "embedding" else ATTENTION_FIT,
        gene_bytes=gene_bytes,
        smaller="attention.level=embedding, which predicts once per bag",
    ),
    needs_bags=True,
    feature_inputs=(0,),
    choices={"bags.parts": (1, 16, 64)},
    small={"bags": {"parts": 64}, "fit": {"epochs": 60}},
)
"""Labels of whole bags of tiles, and maps of their tiles; Graziani et al. 2022."""
