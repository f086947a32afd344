"""Laws of the poolings, on tokens whose rows can be worked out by hand."""

import pytest
import torch
from torch import nn

from raystp.encoders import pools


class Trunk(nn.Module):
    """What a pooling asks a trunk: one class token and two registers, of 16 values."""

    num_prefix_tokens, num_features = 3, 16


def tokens() -> torch.Tensor:
    return torch.randn((2, 3 + 9, 16), generator=torch.Generator().manual_seed(0))


def test_the_class_token_is_the_first() -> None:
    assert torch.equal(pools.made("class", Trunk(), 16)(tokens()), tokens()[:, 0])


def test_registers_are_in_neither_half_of_class_and_mean() -> None:
    pool, changed = pools.made("class + mean", Trunk(), 32), tokens()
    changed[:, 1:3] = torch.nan
    rows = pool(changed)
    assert torch.equal(rows, torch.cat([tokens()[:, 0], tokens()[:, 3:].mean(1)], dim=1))


def test_maps_are_averaged_over_space_in_either_layout() -> None:
    maps = torch.randn(2, 5, 3, 3)
    rows = pools.made("mean of NCHW", Trunk(), 5)(maps)
    torch.testing.assert_close(rows, maps.flatten(2).mean(2))
    torch.testing.assert_close(pools.made("mean of NHWC", Trunk(), 5)(maps.permute(0, 2, 3, 1)), rows)


def by_hand(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Attention of one query, head after head."""
    heads = []
    for part in range(pools.HEADS):
        of = slice(part * 2, part * 2 + 2)
        share = torch.softmax(keys[:, :, of] @ query[of] / 2**0.5, dim=1)
        heads.append((share[:, :, None] * values[:, :, of]).sum(1))
    return torch.cat(heads, dim=1)


def drawn(pool: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in pool.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return pool


@pytest.mark.parametrize("pooling", ["query", "plain query"])
def test_a_query_is_answered_as_attention_says(pooling: str) -> None:
    pool = drawn(pools.made(pooling, Trunk(), 16))
    state = pool.state_dict()
    with torch.no_grad():
        query, asked = pool.ln_q(pool.query)[0], pool.ln_k(tokens())  # type: ignore[operator]
        if pooling == "query":
            first, second, third = state["attn.in_proj_bias"].chunk(3)
            to_q, to_k, to_v = state["attn.in_proj_weight"].chunk(3)
            answer = by_hand(to_q @ query + first, asked @ to_k.T + second, asked @ to_v.T + third)
            answer = answer @ state["attn.out_proj.weight"].T + state["attn.out_proj.bias"]
        else:
            to_k, to_v = state["to_kv.weight"].chunk(2)
            answer = by_hand(state["to_q.weight"] @ query, asked @ to_k.T, asked @ to_v.T) @ state["to_out.weight"].T
        torch.testing.assert_close(pool(tokens()), pool.norm(answer), rtol=1e-4, atol=1e-4)  # type: ignore[operator]


def test_an_unknown_pooling_is_named() -> None:
    with pytest.raises(ValueError, match="'meen'"):
        pools.made("meen", Trunk(), 16)
