"""A gene's query attends to the spatial tokens of a tile: which part of the tile says most about this gene.

The answer is a weighted mean of the projected tokens, head by head, without further projection. So one token that is
the tile's vector gives exactly GeneQuery without a context.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class TokenAttention(nn.Module):
    """Scaled dot-product attention of gene texts to image tokens, whose values are the tokens themselves."""

    def __init__(self, dim: int, *, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, heads * head_dim, bias=False)
        self.key = nn.Linear(dim, heads * head_dim, bias=False)

    def forward(
        self, tokens: Float[Tensor, "tile token joint"], texts: Float[Tensor, "gene joint"]
    ) -> Float[Tensor, "tile gene joint"]:
        """Return what each gene reads of each tile. Memory: tiles x heads x genes x tokens."""
        queries = self._split(self.query(texts)[None]).expand(len(tokens), -1, -1, -1)
        read = functional.scaled_dot_product_attention(queries, self._split(self.key(tokens)), self._split(tokens))
        joined: Tensor = read.transpose(1, 2).flatten(start_dim=2)
        return joined

    def _split(self, x: Tensor) -> Tensor:
        """Turn [tile, token, dim] into [tile, head, token, part of dim]."""
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)
