"""Self-attention over the pixels of a feature map, and the attention pooling of the classifiers."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rediffuse.errors import ConfigError
from rediffuse.models.layers import GroupNorm, zeroed


def split_heads_outermost(qkv: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Channels counted by head, then q, k, v: guided-diffusion's legacy order, which most published weights have.

    qkv: (N, L, 3C). Returns q, k, v, each (N, num_heads, L, C / num_heads), as views.
    """
    q, k, v = qkv.unflatten(2, (num_heads, 3, -1)).permute(3, 0, 2, 1, 4)
    return q, k, v


def split_qkv_outermost(qkv: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Channels counted by q, k, v, then head: guided-diffusion's new order; shapes as `split_heads_outermost`."""
    q, k, v = qkv.unflatten(2, (3, num_heads, -1)).permute(2, 0, 3, 1, 4)
    return q, k, v


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v (arXiv:1706.03762, Eq. 1), the heads concatenated: (N, heads, L, d) -> (N, L, C)."""
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def count_heads(channels: int, num_heads: int, num_head_channels: int) -> int:
    """The number of attention heads: `channels / num_head_channels` where that is given (not -1), else `num_heads`.

    Raises ConfigError unless the number of heads divides the channels.
    """
    if num_head_channels != -1:
        if num_head_channels < 1 or channels % num_head_channels:
            raise ConfigError(f"num_head_channels={num_head_channels}: must divide the {channels} attention channels")
        return channels // num_head_channels
    if num_heads < 1 or channels % num_heads:
        raise ConfigError(f"num_heads={num_heads}: must divide the {channels} attention channels")
    return num_heads


class TokenLinear(nn.Conv1d):
    """A linear map of tokens, (N, L, C_in) -> (N, L, C_out), its weight stored as that of a 1-wide convolution.

    Published weights have the shape (C_out, C_in, 1). With the channels innermost, attention needs no copy of q, k, v.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=1)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight.squeeze(-1), self.bias)


class AttentionBlock(nn.Module):
    """Residual self-attention of all positions of a feature map: (N, C, ...) -> (N, C, ...)."""

    def __init__(
        self, channels: int, num_heads: int, *, use_new_attention_order: bool = False, use_checkpoint: bool = False
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.use_checkpoint = use_checkpoint
        self.split = split_qkv_outermost if use_new_attention_order else split_heads_outermost
        self.norm = GroupNorm(channels)
        self.qkv = TokenLinear(channels, 3 * channels)
        self.proj_out = zeroed(TokenLinear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        if self.use_checkpoint and torch.is_grad_enabled():
            return checkpoint(self._forward, x, use_reentrant=False)
        return self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # (N, L, C)
        h = attend(*self.split(self.qkv(tokens), self.num_heads))
        return x + self.proj_out(h).transpose(1, 2).reshape(x.shape)


class AttentionPool2d(nn.Module):
    """Attention pooling of a feature map, with its mean as the only query (CLIP, arXiv:2103.00020, sec. 2.4).

    (N, embed_dim, spatial_dim, spatial_dim) -> (N, output_dim). The size is fixed: every position has an embedding.
    """

    def __init__(self, spatial_dim: int, embed_dim: int, num_head_channels: int, output_dim: int) -> None:
        super().__init__()
        self.spatial_dim = spatial_dim
        self.num_heads = count_heads(embed_dim, -1, num_head_channels)
        self.positional_embedding = nn.Parameter(torch.randn(embed_dim, spatial_dim**2 + 1) / math.sqrt(embed_dim))
        self.qkv_proj = TokenLinear(embed_dim, 3 * embed_dim)
        self.c_proj = TokenLinear(embed_dim, output_dim)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2:] != (self.spatial_dim, self.spatial_dim):
            side = self.spatial_dim
            given = "x".join(map(str, x.shape[2:]))
            raise ConfigError(f"attention pooling was built for feature maps of {side}x{side}, given one of {given}")
        positions = x.flatten(2)  # (N, C, L)
        mean = positions.mean(dim=-1, keepdim=True)
        tokens = torch.cat([mean, positions], dim=-1) + self.positional_embedding.to(x.dtype)  # (N, C, 1 + L)
        q, k, v = split_qkv_outermost(self.qkv_proj(tokens.transpose(1, 2)), self.num_heads)
        return self.c_proj(attend(q[:, :, :1], k, v)).squeeze(1)  # only the mean token is a query
