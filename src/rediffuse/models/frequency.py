"""Radial frequency bands of an image, for real Fourier transforms."""

import math
from functools import lru_cache

import torch
from torch import Tensor

from rediffuse.errors import ConfigError

HIGHEST = math.sqrt(0.5)
"""The highest radial frequency of an image, in cycles per pixel: the Nyquist frequency along both axes."""


@lru_cache(maxsize=32)
def radial_bands(
    height: int,
    width: int,
    num_bands: int = 8,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Hat functions of the radial frequency, equally spaced from 0 to the highest one, that sum to 1 everywhere.

    Returns (num_bands, height, width // 2 + 1): band k times `torch.fft.rfft2` of an image (height, width) is that
    image's part around k / (num_bands - 1) of the highest frequency. Real and radial, so no phase moves. The tensor
    is cached and shared: do not write to it. Raises ConfigError for fewer than two bands.
    """
    if num_bands < 2:
        raise ConfigError(f"num_bands={num_bands}: at least 2 are needed")
    with torch.inference_mode(False):  # a cached inference tensor could never take part in training
        frequency_y = torch.fft.fftfreq(height, dtype=torch.float64, device="cpu")
        frequency_x = torch.fft.rfftfreq(width, dtype=torch.float64, device="cpu")
        rho = torch.hypot(frequency_y[:, None], frequency_x)  # (H, W // 2 + 1), cycles per pixel
        position = rho / HIGHEST * (num_bands - 1)
        centres = torch.arange(num_bands, dtype=torch.float64, device="cpu")[:, None, None]
        bands = (1 - (position - centres).abs()).clamp(min=0)  # (K, H, W // 2 + 1)
        return bands.to(device, dtype)
