"""Attention against its definition, in both orders of q, k, v."""

import pytest
import torch
from torch import Tensor

from rediffuse.errors import ConfigError
from rediffuse.models.attention import (
    AttentionBlock,
    AttentionPool2d,
    attend,
    count_heads,
    split_heads_outermost,
    split_qkv_outermost,
)


def by_definition(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v of one head, each (L, d)."""
    return torch.softmax(q @ k.T / q.shape[1] ** 0.5, dim=-1) @ v


def test_heads_outermost_is_the_legacy_order() -> None:
    qkv = torch.randn(1, 5, 24)  # 2 heads of 4 channels: q k v, q k v
    heads = [by_definition(*head.split(4, dim=1)) for head in qkv[0].split(12, dim=1)]
    torch.testing.assert_close(attend(*split_heads_outermost(qkv, 2))[0], torch.cat(heads, dim=1))


def test_qkv_outermost_is_the_new_order() -> None:
    qkv = torch.randn(1, 5, 24)  # q q, k k, v v
    heads = [
        by_definition(*parts) for parts in zip(*(part.split(4, dim=1) for part in qkv[0].split(8, 1)), strict=True)
    ]
    torch.testing.assert_close(attend(*split_qkv_outermost(qkv, 2))[0], torch.cat(heads, dim=1))


def test_splitting_copies_nothing() -> None:
    qkv = torch.randn(1, 5, 24)
    for split in (split_heads_outermost, split_qkv_outermost):
        assert all(part.untyped_storage().data_ptr() == qkv.untyped_storage().data_ptr() for part in split(qkv, 2))


@pytest.mark.parametrize("size", [(7,), (5, 3), (2, 3, 4)])
def test_attention_block_starts_as_the_identity_on_any_size(size: tuple[int, ...]) -> None:
    x = torch.randn(2, 32, *size)
    torch.testing.assert_close(AttentionBlock(32, 4)(x), x, rtol=0, atol=0)


def test_attention_pool_is_the_attention_of_the_mean() -> None:
    pool = AttentionPool2d(3, 32, num_head_channels=32, output_dim=5)
    x = torch.randn(1, 32, 3, 3)
    positions = x[0].flatten(1).T  # (L, C)
    tokens = torch.cat([positions.mean(0, keepdim=True), positions]) + pool.positional_embedding.T
    q, k, v = (tokens @ pool.qkv_proj.weight[..., 0].T + pool.qkv_proj.bias).chunk(3, dim=1)
    expected = by_definition(q, k, v)[0] @ pool.c_proj.weight[..., 0].T + pool.c_proj.bias
    torch.testing.assert_close(pool(x)[0], expected)


def test_attention_pool_names_the_size_it_was_built_for() -> None:
    with pytest.raises(ConfigError, match="built for feature maps of 3x3, given one of 4x4"):
        AttentionPool2d(3, 32, 32, 5)(torch.randn(1, 32, 4, 4))


@pytest.mark.parametrize(
    ("num_heads", "num_head_channels", "message"), [(3, -1, "num_heads=3"), (1, 48, "num_head_channels=48")]
)
def test_heads_that_do_not_divide_the_channels_are_refused(
    num_heads: int, num_head_channels: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=f"{message}: must divide the 64 attention channels"):
        count_heads(64, num_heads, num_head_channels)
