"""The parts of the networks: embeddings, normalisation, resampling, the residual block (ADM, arXiv:2105.05233)."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rediffuse.models.group_norm_cpu import DTYPES, LANES, load_kernel

NUM_GROUPS = 32


def timestep_embedding(timesteps: Tensor, dim: int, max_period: float = 10000) -> Tensor:
    """Sinusoids of the timestep at `dim // 2` frequencies from 1 down to 1 / max_period (DDPM, arXiv:2006.11239).

    timesteps: (N,), whole or fractional. Returns (N, dim) float32: first the cosines, then the sines, then a column
    of zeros where `dim` is odd.
    """
    half = dim // 2
    octaves = torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    angles = timesteps[:, None].float() * torch.exp(-math.log(max_period) * octaves)  # (N, half)
    embedding = torch.cat([angles.cos(), angles.sin()], dim=-1)
    return F.pad(embedding, (0, dim % 2))


def conv_nd(
    dims: int, in_channels: int, out_channels: int, kernel_size: int, stride: int | tuple[int, ...] = 1
) -> nn.Module:
    """A convolution in 1, 2 or 3 dimensions that keeps the size at stride 1 (odd kernels)."""
    conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]
    return conv(in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2)


def zeroed(module: nn.Module) -> nn.Module:
    """The module with all its parameters at zero: a residual branch that ends in it starts as the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


class GroupNorm(nn.GroupNorm):
    """Normalisation over 32 groups, in the precision of its own parameters and not of its input.

    `to_torso_dtype` leaves these parameters in float32: a sum over a large feature map overflows in half precision.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(NUM_GROUPS, channels)

    def forward(self, input: Tensor) -> Tensor:
        fused = None if _needs_plain_operations() else _fused_kernel(input, self.weight)
        if fused is not None:
            return fused(input, self.num_groups, self.weight, self.bias, self.eps, silu=False)
        return self._normalised(input, self.weight, self.bias)

    def silu(self, x: Tensor, scale_shift: Tensor | None = None) -> Tensor:
        """silu(norm(x)), or silu(norm(x) (1 + scale) + shift), like x.

        x: (N, C, ...); scale_shift: (N or 1, 2C), the scale and then the shift.
        """
        is_plain = _needs_plain_operations()
        fused = None if is_plain else _fused_kernel(x, self.weight)
        if fused is not None:
            affine = (self.weight, self.bias) if scale_shift is None else self.changed(scale_shift)
            return fused(x, self.num_groups, *affine, self.eps, silu=True)
        if not is_plain and scale_shift is not None and len(scale_shift) == 1:
            h = self._normalised(x, *self.changed(scale_shift))
        else:
            h = self(x)
            if scale_shift is not None:
                scale, shift = _as_map(scale_shift, h).chunk(2, dim=1)
                h = h * (1 + scale) + shift
        return F.silu(h, inplace=not is_plain)

    def changed(self, scale_shift: Tensor, /) -> tuple[Tensor, Tensor]:
        """Weight and bias of the normalisation with its scale and shift in `silu`: (C,), or (N, C) of N rows."""
        rows = scale_shift[0] if len(scale_shift) == 1 else scale_shift
        scale, shift = rows.to(self.weight.dtype).chunk(2, dim=-1)
        return self.weight * (1 + scale), self.bias * (1 + scale) + shift

    def _normalised(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        # The kernels of the CPU take an input in half precision with weights in float32; others do not.
        takes_both = x.device.type == "cpu" and weight.dtype == torch.float32 and x.dtype.itemsize == 2
        h = x if takes_both and not torch.is_grad_enabled() else x.to(weight.dtype)
        goes_outermost = not _needs_plain_operations() and _has_slow_kernel(x)
        h = h.contiguous() if goes_outermost else h
        h = F.group_norm(h, self.num_groups, weight, bias, self.eps).to(x.dtype)
        return h.contiguous(memory_format=torch.channels_last) if goes_outermost else h


def _needs_plain_operations() -> bool:
    """In a training autograd needs every step, and a compiler fuses them itself."""
    return torch.is_grad_enabled() or torch.compiler.is_compiling()


def _fused_kernel(x: Tensor, weight: Tensor) -> Callable[..., Tensor] | None:
    """A kernel for all of `GroupNorm.silu` where one takes x, which has its channels innermost, and the weights.

    On a GPU it is `group_norm_kernel.group_norm`, on a CPU `group_norm_cpu.group_norm`.
    """
    if x.ndim != 4 or not x.is_contiguous(memory_format=torch.channels_last):
        return None
    if x.device.type == "cuda":
        return _triton_kernel() if x.dtype != torch.float64 else None
    # A subclass of tensors, such as those that count memory, has no numbers.
    has_numbers = x.device.type == "cpu" and type(x) is Tensor
    is_taken = x.dtype in DTYPES and weight.dtype == torch.float32 and x.shape[1] % LANES == 0
    return load_kernel() if has_numbers and is_taken else None


@cache
def _triton_kernel() -> Callable[..., Tensor] | None:
    """None without Triton, which torch's builds for GPUs bring on Linux only."""
    try:
        from rediffuse.models.group_norm_kernel import group_norm
    except ImportError:
        return None
    return group_norm


def _has_slow_kernel(x: Tensor) -> bool:
    """Whether x (N, C, H, W) is normalised faster with its channels outermost, in spite of two copies.

    torch's kernel for channels last goes through maps of fewer than 1,024 pixels group by group, C / 32 numbers at a
    time. For 16 maps of 128 channels at 16 px in bf16 it takes as long as the convolution after it.
    """
    return (
        x.device.type == "cpu"
        and x.ndim == 4
        and x.shape[2] * x.shape[3] < 1024
        and x.shape[1] // NUM_GROUPS < 16
        and x.is_contiguous(memory_format=torch.channels_last)
    )


def _as_map(emb_out: Tensor, h: Tensor) -> Tensor:
    """(N or 1, channels) with as many dimensions as h (N, C, ...), in its precision."""
    return emb_out.reshape(*emb_out.shape, *(1,) * (h.ndim - 2)).to(h.dtype)


def first_norm(layers: nn.Sequential) -> GroupNorm:
    """The normalisation at the beginning of the layers."""
    norm = layers[0]
    assert isinstance(norm, GroupNorm)
    return norm


class Upsample(nn.Module):
    """Double the size by repetition, then, with `use_conv`, convolve (width 3); the depth of a volume is unchanged.

    (N, C, ..., H, W) -> (N, out_channels, ..., 2H, 2W)
    """

    def __init__(self, channels: int, use_conv: bool, dims: int = 2, out_channels: int | None = None) -> None:
        super().__init__()
        self.scale = tuple(float(factor) for factor in _resampling(dims))
        self.conv = conv_nd(dims, channels, out_channels or channels, 3) if use_conv else None

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=self.scale, mode="nearest")  # pyright: ignore[reportArgumentType]
        return x if self.conv is None else self.conv(x)


class Downsample(nn.Module):
    """Halve the size, by a strided 3-wide convolution or by averaging; the depth of a volume is unchanged.

    (N, C, ..., H, W) -> (N, out_channels, ..., H/2, W/2)
    """

    def __init__(self, channels: int, use_conv: bool, dims: int = 2, out_channels: int | None = None) -> None:
        super().__init__()
        stride = _resampling(dims)
        if use_conv:
            self.op = conv_nd(dims, channels, out_channels or channels, 3, stride)
        else:
            assert out_channels in (None, channels), "averaging keeps the number of channels"
            self.op = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}[dims](stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


def _resampling(dims: int) -> tuple[int, ...]:
    """The factor along each dimension; 1 for the depth of a volume."""
    return (1, 2, 2) if dims == 3 else (2,) * dims


class TimestepBlock(nn.Module, ABC):
    """A layer that also takes the embedding of the timestep."""

    @abstractmethod
    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """x: (N, C, ...), emb: (N, emb_channels)."""


class TimestepEmbedSequential(nn.Sequential):
    """Layers in sequence; each `TimestepBlock` among them also gets the embedding."""

    def forward(self, input: Tensor, emb: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        for layer in self:
            input = layer(input, emb) if isinstance(layer, TimestepBlock) else layer(input)
        return input


@dataclass(frozen=True, kw_only=True)
class BlockOptions:
    """The options that all residual blocks of a network share."""

    emb_channels: int
    dropout: float = 0.0
    use_scale_shift_norm: bool = False
    """The embedding scales and shifts the second normalisation (AdaGN) instead of being added before it."""
    dims: int = 2
    use_checkpoint: bool = False


class ResBlock(TimestepBlock):
    """BigGAN's residual block with a timestep embedding and optional resampling (arXiv:2105.05233, sec. 3).

    (N, channels, ...) -> (N, out_channels, ...), the size doubled or halved by `resample`. `use_conv` gives the
    shortcut a kernel of width 3 where the number of channels changes, instead of 1.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        options: BlockOptions,
        *,
        resample: Literal["up", "down"] | None = None,
        use_conv: bool = False,
    ) -> None:
        super().__init__()
        dims = options.dims
        self.use_checkpoint = options.use_checkpoint
        self.use_scale_shift_norm = options.use_scale_shift_norm
        self.in_layers = nn.Sequential(GroupNorm(channels), nn.SiLU(), conv_nd(dims, channels, out_channels, 3))
        # They have no parameters; both attributes exist because guided-diffusion's module tree has them.
        self.h_upd, self.x_upd = _resampler(channels, resample, dims), _resampler(channels, resample, dims)
        emb_outputs = 2 * out_channels if options.use_scale_shift_norm else out_channels
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(options.emb_channels, emb_outputs))
        self.out_layers = nn.Sequential(
            GroupNorm(out_channels),
            nn.SiLU(),
            nn.Dropout(options.dropout),
            zeroed(conv_nd(dims, out_channels, out_channels, 3)),
        )
        same = out_channels == channels
        self.skip_connection = nn.Identity() if same else conv_nd(dims, channels, out_channels, 3 if use_conv else 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        if self.use_checkpoint and torch.is_grad_enabled():
            return checkpoint(self._forward, x, emb, use_reentrant=False)
        return self._forward(x, emb)

    def _forward(self, x: Tensor, emb: Tensor) -> Tensor:
        *_, conv = self.in_layers
        h = conv(self.h_upd(first_norm(self.in_layers).silu(x)))
        x = self.x_upd(x)
        emb_out = self.emb_layers(emb)  # (N or 1, C or 2C)
        norm, (*_, dropout, conv) = first_norm(self.out_layers), self.out_layers
        h = norm.silu(h, emb_out) if self.use_scale_shift_norm else norm.silu(h + _as_map(emb_out, h))
        return self.skip_connection(x) + conv(dropout(h))


def _resampler(channels: int, resample: Literal["up", "down"] | None, dims: int) -> nn.Module:
    if resample is None:
        return nn.Identity()
    return (Upsample if resample == "up" else Downsample)(channels, use_conv=False, dims=dims)
