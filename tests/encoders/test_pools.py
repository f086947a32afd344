"""Laws of the poolings, on tokens whose rows can be computed by hand."""

import pytest
import torch
from torch import nn

from raystp.encoders import pools

PREFIX_TOKENS = 3
"""One class token and two registers."""


def create(pooling: str, dim: int) -> nn.Module:
    return pools.create_pooling(pooling, token_dim=16, prefix_tokens=PREFIX_TOKENS, dim=dim)


def tokens() -> torch.Tensor:
    return torch.randn((2, 3 + 9, 16), generator=torch.Generator().manual_seed(0))


def test_the_class_token_is_the_first() -> None:
    assert torch.equal(create("class", 16)(tokens()), tokens()[:, 0])


def test_class_and_mean_do_not_contain_registers() -> None:
    pool, changed = create("class + mean", 32), tokens()
    changed[:, 1:3] = torch.nan
    rows = pool(changed)
    assert torch.equal(rows, torch.cat([tokens()[:, 0], tokens()[:, 3:].mean(1)], dim=1))


def test_maps_are_averaged_over_the_spatial_axes_in_both_layouts() -> None:
    maps = torch.randn(2, 5, 3, 3)
    rows = create("mean of NCHW", 5)(maps)
    torch.testing.assert_close(rows, maps.flatten(2).mean(2))
    torch.testing.assert_close(create("mean of NHWC", 5)(maps.permute(0, 2, 3, 1)), rows)


def by_hand(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Attention of one query, head by head."""
    heads = []
    for head in range(pools.HEADS):
        columns = slice(head * 2, head * 2 + 2)
        share = torch.softmax(keys[:, :, columns] @ query[columns] / 2**0.5, dim=1)
        heads.append((share[:, :, None] * values[:, :, columns]).sum(1))
    return torch.cat(heads, dim=1)


def with_random_weights(pool: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in pool.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return pool


@pytest.mark.parametrize("pooling", ["query", "plain query"])
def test_a_query_pool_is_attention(pooling: str) -> None:
    pool = with_random_weights(create(pooling, 16))
    state = pool.state_dict()
    with torch.no_grad():
        query, keys = pool.ln_q(pool.query)[0], pool.ln_k(tokens())  # type: ignore[operator]
        if pooling == "query":
            first, second, third = state["attn.in_proj_bias"].chunk(3)
            to_q, to_k, to_v = state["attn.in_proj_weight"].chunk(3)
            output = by_hand(to_q @ query + first, keys @ to_k.T + second, keys @ to_v.T + third)
            output = output @ state["attn.out_proj.weight"].T + state["attn.out_proj.bias"]
        else:
            to_k, to_v = state["to_kv.weight"].chunk(2)
            output = by_hand(state["to_q.weight"] @ query, keys @ to_k.T, keys @ to_v.T) @ state["to_out.weight"].T
        torch.testing.assert_close(pool(tokens()), pool.norm(output), rtol=1e-4, atol=1e-4)  # type: ignore[operator]


def test_an_unknown_pooling_is_refused() -> None:
    with pytest.raises(ValueError, match="'meen'"):
        create("meen", 16)
