"""NH2ST's hypergraph over a neighbourhood: hyperedges join similar nodes, and a convolution averages along them.

A neighbourhood has few nodes, so all matrices are small and dense, and a batch of neighbourhoods is one product. Absent
nodes (at the edge of the tissue) belong to no hyperedge and have none.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional


@torch.no_grad()
def incidence(
    features: Float[Tensor, "sample node feature"], mask: Bool[Tensor, "sample node"], nearest: int
) -> Float[Tensor, "sample node edge"]:
    """Return which nodes (rows) each hyperedge (columns) joins: a node and the `nearest` others of highest cosine.

    Each present node has one hyperedge (NH2ST's published code: 9 nodes, 9 hyperedges of 4). Cosines that are equal in
    six decimals are a tie; the lower node comes first. With fewer other nodes, a hyperedge joins all of them.
    """
    unit = functional.normalize(features.float(), dim=-1)
    both = mask[:, :, None] & mask[:, None, :]
    own = torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
    cosine = torch.round(unit @ unit.mT, decimals=6).masked_fill(~both, -torch.inf).masked_fill(own, torch.inf)
    chosen = cosine.argsort(dim=-1, descending=True, stable=True)[..., : nearest + 1]
    members = torch.zeros_like(cosine).scatter_(-1, chosen, 1.0)
    return (members * both).mT


def spread(incidence: Float[Tensor, "sample node edge"]) -> Float[Tensor, "sample node node"]:
    """Return `D^-1 H B^-1 H'`: the mean over a node's hyperedges of the mean over their nodes.

    D counts a node's hyperedges and B a hyperedge's nodes. A division by zero gives zero, as in PyTorch Geometric's
    `HypergraphConv`, which the published code uses with its defaults (no attention, unit weights).
    """
    of_node, of_edge = incidence.sum(dim=2, keepdim=True), incidence.sum(dim=1, keepdim=True)
    averaged: Tensor = incidence / of_node.clamp(min=1) @ (incidence / of_edge.clamp(min=1)).mT
    return averaged


class HypergraphConv(nn.Module):
    """`D^-1 H B^-1 H' X Theta + b` (Bai, Zhang & Torr, 2019), from the matrix that `spread` returns."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.theta = nn.Linear(width, dim, bias=False)
        self.bias = nn.Parameter(torch.zeros(dim))
        nn.init.xavier_uniform_(self.theta.weight)

    def forward(
        self, x: Float[Tensor, "sample node width"], averaged: Float[Tensor, "sample node node"]
    ) -> Float[Tensor, "sample node dim"]:
        """Return the convolved nodes."""
        out: Tensor = averaged.to(x.dtype) @ self.theta(x) + self.bias
        return out


class HypergraphNetwork(nn.Module):
    """Two convolutions, each with a ReLU after it: the design of both of NH2ST's neighbour encoders."""

    def __init__(self, width: int, hidden: int, dim: int) -> None:
        super().__init__()
        self.first = HypergraphConv(width, hidden)
        self.second = HypergraphConv(hidden, dim)

    def forward(
        self, x: Float[Tensor, "sample node width"], averaged: Float[Tensor, "sample node node"]
    ) -> Float[Tensor, "sample node dim"]:
        """Return the nodes' encodings; those of absent nodes have no meaning."""
        hidden = functional.relu(self.first(x, averaged))
        return functional.relu(self.second(hidden, averaged))


def mean_of_present(
    nodes: Float[Tensor, "sample node dim"], mask: Bool[Tensor, "sample node"]
) -> Float[Tensor, "sample dim"]:
    """Return the mean over the present nodes."""
    weight = mask.to(nodes.dtype)[..., None]
    return (nodes * weight).sum(dim=1) / weight.sum(dim=1)
