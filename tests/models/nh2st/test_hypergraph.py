"""NH2ST's hypergraph: the nodes of each hyperedge, and the convolution against its formula in numpy."""

import numpy as np
import torch
from torch import Tensor

from raystp.models.nh2st.hypergraph import HypergraphConv, HypergraphNetwork, incidence, mean_of_present, spread


def _nodes(samples: int = 4, width: int = 12, seed: int = 0) -> Tensor:
    return torch.randn(samples, 9, width, generator=torch.Generator().manual_seed(seed))


ALL = torch.ones(4, 9, dtype=torch.bool)


def test_nine_nodes_have_nine_hyperedges_of_four_with_their_own_node_in_each() -> None:
    edges = incidence(_nodes(), ALL, 3)
    assert edges.shape == (4, 9, 9)
    assert ((edges == 0) | (edges == 1)).all()
    assert (edges.sum(dim=1) == 4).all()
    assert (edges.diagonal(dim1=1, dim2=2) == 1).all()


def test_a_hyperedge_joins_the_nodes_of_highest_cosine_of_any_length() -> None:
    angles = torch.deg2rad(torch.tensor([0.0, 10, 20, 100, 110, 120, 200, 210, 220]))
    lengths = torch.tensor([1.0, 50, 2, 0.1, 3, 7, 1, 1, 90])
    points = (torch.stack([angles.cos(), angles.sin()], dim=1) * lengths[:, None])[None]
    edges = incidence(points, ALL[:1], 2)[0]
    torch.testing.assert_close(edges, torch.kron(torch.eye(3), torch.ones(3, 3)))


def test_equal_nodes_are_joined_lowest_first() -> None:
    edges = incidence(torch.ones(1, 9, 5), ALL[:1], 3)[0]
    assert edges[:, 0].nonzero().flatten().tolist() == [0, 1, 2, 3]
    assert edges[:, 8].nonzero().flatten().tolist() == [0, 1, 2, 8]


def test_convolution_equals_the_dense_formula() -> None:
    x, edges = _nodes(), incidence(_nodes(), ALL, 3)
    conv = HypergraphConv(12, 5)
    torch.nn.init.normal_(conv.bias)
    out = conv(x, spread(edges)).detach().numpy()
    theta, bias = conv.theta.weight.detach().numpy().T, conv.bias.detach().numpy()
    for sample in range(4):
        h = edges[sample].numpy()
        d, b = np.diag(1 / h.sum(axis=1)), np.diag(1 / h.sum(axis=0))
        np.testing.assert_allclose(out[sample], d @ h @ b @ h.T @ x[sample].numpy() @ theta + bias, atol=1e-5)


def test_rows_of_spread_sum_to_one() -> None:
    torch.testing.assert_close(spread(incidence(_nodes(), ALL, 3)).sum(dim=2), torch.ones(4, 9))


def test_a_neighbourhood_with_absent_nodes_is_the_smaller_neighbourhood() -> None:
    x, network = _nodes(), HypergraphNetwork(12, 7, 5)
    present = torch.tensor([0, 2, 3, 5, 8])
    mask = torch.zeros(4, 9, dtype=torch.bool)
    mask[:, present] = True
    small, whole = x[:, present], torch.ones(4, 5, dtype=torch.bool)
    within = network(x, spread(incidence(x, mask, 3)))
    alone = network(small, spread(incidence(small, whole, 3)))
    torch.testing.assert_close(within[:, present], alone)
    torch.testing.assert_close(mean_of_present(within, mask), alone.mean(dim=1))


def test_a_node_alone_is_its_own_hyperedge() -> None:
    mask = torch.zeros(4, 9, dtype=torch.bool)
    mask[:, 0] = True
    averaged = spread(incidence(_nodes(), mask, 3))
    expected = torch.zeros(4, 9, 9)
    expected[:, 0, 0] = 1
    torch.testing.assert_close(averaged, expected)
