"""Frequency filters in the networks: radial bands, the spectral residual gate, and presets that need no training.

A gate filters a skip connection x, (N, C, ...), of a U-Net, just before the decoder uses it:

    y = x + irfft2(G(rho, t) rfft2(x)),    G(rho, t) = sum_k delta_k(t) B_k(rho)
    delta(t) = tanh(A + W_out silu(W_in emb(t))),    A = 0 and W_out = 0 at the start

with one delta for every band k and group of channels. B_k are hat functions of the radial frequency rho that sum to 1.
They are real and radial, so a gate changes no phase, and no weight depends on the resolution. A gate whose gains are
zero adds exactly 0: a network with new gates gives bit-identical outputs to the same network without gates. Multiplying
the spectrum by 1 + G instead would round.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rediffuse.errors import ConfigError
from rediffuse.models.config import FrequencyConfig, Preset
from rediffuse.models.layers import zeroed

GATES = "frequency."
"""Prefix of the names of the gates' tensors in every network."""
NUM_BANDS = 8
"""Number of frequency bands in presets and in the analysis of reconstruction errors (`dire.bands`)."""

FREEU_SKIP = (0.9, 0.2)
"""Factors of the lowest band of the skips, for the deepest level and the one above it: FreeU's for Stable Diffusion."""


def highest(dims: int) -> float:
    """The highest radial frequency in cycles per pixel: 0.5 (Nyquist) in one dimension, sqrt(0.5) in two."""
    return math.sqrt(min(dims, 2)) / 2


def radial_bands(
    size: tuple[int, ...],
    num_bands: int = NUM_BANDS,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Hat functions of the radial frequency, equally spaced from 0 to the highest one, that sum to 1 everywhere.

    Args:
        size: (height, width) of an image, or (length,) of a signal.
        num_bands: K, at least 2.

    Returns:
        (K, height, width // 2 + 1) or (K, length // 2 + 1): band k times the `torch.fft.rfftn` over these axes is the
        part around k / (K - 1) of the highest frequency. The tensor is cached and shared: do not write to it.

    Raises:
        ConfigError: fewer than two bands.
    """
    if num_bands < 2:
        raise ConfigError(f"num_bands={num_bands}: at least 2 are needed")
    if torch.compiler.is_compiling():  # the compiler traces through caches, and folds constants itself
        return _hats(tuple(size), num_bands, device, dtype)
    return _cached_bands(tuple(size), num_bands, torch.device(device), dtype)


@lru_cache(maxsize=64)
def _cached_bands(size: tuple[int, ...], num_bands: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):  # a cached inference tensor could not be used in training
        return _hats(size, num_bands, "cpu", torch.float64).to(device, dtype)


def _hats(size: tuple[int, ...], num_bands: int, device: torch.device | str, dtype: torch.dtype) -> Tensor:
    *columns, row = size
    rho = torch.fft.rfftfreq(row, dtype=dtype, device=device)  # cycles per pixel
    if columns:
        rho = torch.hypot(torch.fft.fftfreq(columns[0], dtype=dtype, device=device)[:, None], rho)
    position = rho / highest(len(size)) * (num_bands - 1)
    centres = torch.arange(num_bands, dtype=dtype, device=device).reshape(-1, *(1,) * rho.ndim)
    return (1 - (position - centres).abs()).clamp(min=0)  # (K, H, W // 2 + 1)


def filter_bands(x: Tensor, gains: Tensor, dims: int = 2) -> Tensor:
    """x + irfft2(sum_k gains_k B_k rfft2(x)): every band of x multiplied by 1 + gain.

    Args:
        x: (N, C, ...), of any floating type; the transform is in float32 at least, since half-precision transforms
            need sizes that are powers of two, and bfloat16 has no transforms.
        gains: (N or 1, G, K), G dividing C; -1 removes a band, 0 does not change it.
        dims: spatial dimensions: 1 transforms along the length, 2 over the image, 3 over each image of a volume.

    Returns:
        The filtered tensor, with the shape and type of x.
    """
    axes = tuple(range(-min(dims, 2), 0))
    size = tuple(x.shape[axis] for axis in axes)
    with _full_precision(x):
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        bands = radial_bands(size, gains.shape[2], device=x.device, dtype=values.dtype)
        bands = bands.repeat_interleave(2, dim=-1)  # one for the real part of a frequency, one for the imaginary part
        gain = (gains.to(values.dtype) @ bands.flatten(1)).unflatten(2, bands.shape[1:])  # (N, G, H, 2(W//2+1))
        gain = gain.reshape(*gain.shape[:2], *(1,) * (dims - len(axes) + 1), *gain.shape[2:])
        spectrum = torch.view_as_real(torch.fft.rfftn(values, dim=axes, norm="ortho")).flatten(-2)
        changed = (spectrum.unflatten(1, (gain.shape[1], -1)) * gain).flatten(1, 2).unflatten(-1, (-1, 2))
        change = torch.fft.irfftn(torch.view_as_complex(changed), s=size, dim=axes, norm="ortho")
        return (values + change).to(x.dtype)


class FrequencyGate(nn.Module):
    """The spectral residual gate on feature maps of `channels` channels; its gains depend on the timestep embedding."""

    def __init__(self, channels: int, emb_channels: int, config: FrequencyConfig, dims: int = 2) -> None:
        super().__init__()
        assert channels % config.num_groups == 0
        self.dims = dims
        self.offset = nn.Parameter(torch.zeros(config.num_groups, config.num_bands))  # A
        self.embed = nn.Linear(emb_channels, config.hidden)  # W_in
        self.out = zeroed(nn.Linear(config.hidden, self.offset.numel(), bias=False))  # W_out

    def reset_parameters(self) -> None:
        """Initialise: zero gains, and non-zero gradients for `offset` and `out`."""
        nn.init.zeros_(self.offset)
        self.embed.reset_parameters()
        zeroed(self.out)

    def gains(self, emb: Tensor) -> Tensor:
        """emb: (N, emb_channels) -> delta, (N, G, K), in (-1, 1)."""
        with _full_precision(emb):
            change = self.out(F.silu(self.embed(emb.to(self.offset.dtype))))
            return torch.tanh(self.offset + change.unflatten(1, self.offset.shape))

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """x: (N, channels, ...), emb: (N, emb_channels) -> like x."""
        gains = self.gains(emb)
        # On an accelerator this check would synchronise with the device; there the zeros are computed and added.
        can_check = x.device.type == "cpu" and not torch.compiler.is_compiling()
        if can_check and not torch.is_grad_enabled() and not gains.any():
            return x
        return filter_bands(x, gains, self.dims)


def _full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Autocast switched off, since it would round gains and bands to half precision. Some devices have no autocast."""
    if not torch.amp.is_autocast_available(x.device.type):
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)


# --- presets ----------------------------------------------------------------------------------------------------------


def preset_gains(preset: Preset, level: int, num_levels: int) -> tuple[float, ...] | None:
    """A preset's gains of the `NUM_BANDS` bands of a skip connection; None where it does not change the skip.

    They depend on the resolution: `level` is 0 at full resolution and `num_levels - 1` at the lowest one.

    `freeu` damps the lowest band at the two deepest levels. This is the spectral modulation of FreeU (arXiv:2309.11497)
    with levels chosen by resolution instead of number of channels, and a hat function instead of a step. `sharpen`
    amplifies and `lowpass` removes the upper half of the frequencies at the two finest levels, more at higher ones.
    """
    depth = num_levels - 1 - level
    ramp = tuple(max(0.0, 2 * band / (NUM_BANDS - 1) - 1) for band in range(NUM_BANDS))
    match preset.name:
        case "freeu" if depth < len(FREEU_SKIP):
            return (FREEU_SKIP[depth] - 1, *(0.0,) * (NUM_BANDS - 1))
        case "sharpen" if level < 2:
            return tuple(0.3 * height for height in ramp)
        case "lowpass" if level < 2:
            return tuple(-height for height in ramp)
    return None


def fixed_gains(gains: tuple[float, ...], x: Tensor) -> Tensor:
    """Gains for `filter_bands` that are the same for all images and channels of x, (1, 1, K), on its device.

    The tensor is cached and shared: making it in every call would wait for the device.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    if torch.compiler.is_compiling():  # the compiler traces through caches, and folds constants itself
        return torch.tensor(gains, device=x.device, dtype=dtype)[None, None]
    return _cached_gains(gains, x.device, dtype)


@lru_cache(maxsize=64)
def _cached_gains(gains: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(gains, device=device, dtype=dtype)[None, None]


def is_backbone_level(level: int, num_levels: int) -> bool:
    """Whether FreeU's backbone factor applies at this level: at the levels whose skips FreeU damps."""
    return num_levels - 1 - level < len(FREEU_SKIP)


def amplify(h: Tensor, factor: float) -> Tensor:
    """Scale the first half of the channels of h (N, C, ...), by up to `factor` where h's mean over channels is large.

    FreeU's structure-related scaling (arXiv:2309.11497): alpha = (b - 1) (m - min m) / (max m - min m) + 1, m the mean
    over channels.
    """
    mean = h.mean(dim=1, keepdim=True)  # (N, 1, ...)
    flat = mean.flatten(1)
    low, high = (edge.reshape(-1, *(1,) * (h.ndim - 1)) for edge in (flat.amin(dim=1), flat.amax(dim=1)))
    alpha = (factor - 1) * (mean - low) / (high - low).clamp(min=torch.finfo(h.dtype).tiny) + 1
    half = h.shape[1] // 2
    return torch.cat([h[:, :half] * alpha, h[:, half:]], dim=1)
