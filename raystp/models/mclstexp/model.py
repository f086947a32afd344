"""mclSTExp: CLIP's loss between images and spots, where a transformer over spots is before the spots' head.

Method: Min et al., Briefings in Bioinformatics 2024, in the form of the published code (github.com/ZhicengShi/mclSTExp,
commit 027b6aa). A spot's token is its expression plus the code of its place. In the published code a sequence is a
minibatch; here it is by default the spot's own section. The spots that are attended to (the context) attend to each
other; all others attend to them only. Prediction is retrieval and not part of this module.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from raystp.errors import ModelError
from raystp.models.contrastive.heads import ContrastiveHeads
from raystp.models.mclstexp.options import MclstexpOptions, SequenceSizes
from raystp.models.mclstexp.places import codes_of
from raystp.models.training.options import FitOptions
from raystp.models.training.plan import RankLayout
from raystp.models.transformer import Transformer

Context = tuple[Int64[Tensor, "spot"], Float[Tensor, "other gene"], Float[Tensor, "other 2"], Int64[Tensor, "other"]]
"""Section of each spot; expression, place and section of each spot of these sections that is attended to."""


class Mclstexp(ContrastiveHeads):
    """The two heads, with a transformer over spots."""

    def __init__(self, d_image: int, genes: int, options: MclstexpOptions) -> None:
        super().__init__(d_image, genes, options.contrast)
        self.own = options
        sizes = SequenceSizes(genes, options.layers, options.heads, options.head_dim, options.dropout)
        self.transformer = Transformer(sizes)
        self.codes = codes_of(options, genes)

    def embed_spots(
        self, expression: Float[Tensor, "row gene"], places: Float[Tensor, "row 2"] | None = None, *context: Tensor
    ) -> Float[Tensor, "row joint"]:
        """Return the embeddings of measured spots, in their `Context`, or as one sequence where it is left out."""
        tokens = self._tokens(expression, places)
        if not context:
            sequence = self.transformer(tokens[None])[0]
        else:
            group, others, other_places, other_group = context
            sequence = self._by_section(tokens, group, self._tokens(others, other_places), other_group)
        out: Tensor = self.spot_head(sequence)
        return out

    def forward(
        self, images: Float[Tensor, "pair image"], expression: Float[Tensor, "pair gene"], *at: Tensor
    ) -> tuple[Tensor, ...]:
        """Return both embeddings of each pair; `at` are places and `Context`, as `SectionSpots.at` returns them."""
        return self.embed_images(images), self.embed_spots(expression, *at)

    def loss_part(self, ranks: RankLayout, images: Tensor, spots: Tensor, *inputs: Tensor) -> Float[Tensor, ""]:
        """Return this rank's part of the loss; raises ModelError where the sequence is a batch that ranks share."""
        if self.own.sequence == "batch" and ranks.world > 1:
            msg = (
                "with mclstexp.sequence=batch a spot attends to its whole batch, which run.gather=true splits over the "
                "workers: set run.gather=false, or mclstexp.sequence=section"
            )
            raise ModelError(msg)
        return super().loss_part(ranks, images, spots, *inputs)

    def optimizer(self, parameters: list[nn.Parameter], options: FitOptions) -> torch.optim.Optimizer:
        """Return Adam, whose weight decay is an L2 term of the loss: the published optimiser."""
        return torch.optim.Adam(parameters, lr=options.lr, weight_decay=options.weight_decay)

    def _tokens(self, expression: Tensor, places: Tensor | None) -> Tensor:
        if self.codes is None or places is None:
            return expression
        tokens: Tensor = expression + self.codes(places)
        return tokens

    def _by_section(self, tokens: Tensor, group: Tensor, others: Tensor, other_group: Tensor) -> Tensor:
        """Return the sequence of each section's spots, in the order of the spots."""
        parts, rows = [], []
        for number in torch.unique(group).tolist():
            rows.append((group == number).nonzero()[:, 0])
            context = others[other_group == number]
            parts.append(self.transformer(context[None], queries=tokens[rows[-1]][None])[0])
        sequence: Tensor = torch.cat(parts)[torch.cat(rows).argsort()]
        return sequence


def seeded_mclstexp(d_image: int, genes: int, options: MclstexpOptions, *, seed: int) -> Mclstexp:
    """Return a new model with weights drawn from the seed; torch's global generator is left unchanged."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Mclstexp(d_image, genes, options)
