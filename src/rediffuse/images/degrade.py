"""What happens to images on their way: uint8 pixels (H, W, 3) in, uint8 pixels (H, W, 3) out.

Nothing here changes the file that is judged; tests of robustness and of what a detector really learned do.
"""

import math
from io import BytesIO
from typing import Literal

import numpy as np
from PIL import Image, ImageFilter

from rediffuse.errors import ConfigError
from rediffuse.images.encode import Subsampling, jpeg_bytes, webp_bytes

Filter = Literal["bilinear", "bicubic", "lanczos"]
"""Pillow's resampling filters; all of them average over the pixels that a smaller one stands for."""

_FILTERS: dict[Filter, Image.Resampling] = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def jpeg(pixels: np.ndarray, quality: int, *, subsampling: Subsampling = "4:2:0") -> np.ndarray:
    """Through a JPEG file of this quality (1 to 100)."""
    _check("quality", quality, 1, 100)
    return _decoded(jpeg_bytes(pixels, quality, subsampling=subsampling))


def webp(pixels: np.ndarray, quality: int) -> np.ndarray:
    """Through a lossy WebP file of this quality (0 to 100)."""
    _check("quality", quality, 0, 100)
    return _decoded(webp_bytes(pixels, quality))


def resize(pixels: np.ndarray, scale: float) -> np.ndarray:
    """Scaled by `scale` (0.01 to 4) and back to the size it had, both bicubic."""
    _check("scale", scale, 0.01, 4)
    image = Image.fromarray(pixels)
    width, height = (max(1, round(side * scale)) for side in image.size)
    between = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.array(between.resize(image.size, Image.Resampling.BICUBIC))


def reduce(pixels: np.ndarray, short_side: int, filter: Filter = "bicubic") -> np.ndarray:
    """Scaled until its short side has `short_side` pixels (at least 1); as it is where it has no more than that."""
    _check("short_side", short_side, 1, math.inf)
    height, width = pixels.shape[:2]
    if min(height, width) <= short_side:
        return pixels
    scale = short_side / min(height, width)
    size = (round(width * scale), round(height * scale))
    return np.array(Image.fromarray(pixels).resize(size, _FILTERS[filter]))


def blur(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur; `sigma` in pixels, 0 changes nothing."""
    _check("sigma", sigma, 0, 100)
    return np.array(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(sigma)))


def gaussian_noise(pixels: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Independent normal noise on every value; `sigma` in levels of 0 to 255."""
    _check("sigma", sigma, 0, 255)
    return np.rint(pixels + sigma * rng.standard_normal(pixels.shape)).clip(0, 255).astype(np.uint8)


def crop_border(pixels: np.ndarray, fraction: float) -> np.ndarray:
    """Without a border of `fraction` (0 to 0.45) of each side, at each end: the result is smaller."""
    _check("fraction", fraction, 0, 0.45)
    rows, columns = (round(side * fraction) for side in pixels.shape[:2])
    return pixels[rows : pixels.shape[0] - rows, columns : pixels.shape[1] - columns].copy()


def _check(name: str, given: float, low: float, high: float) -> None:
    if not low <= given <= high:
        raise ConfigError(f"{name}={given}: from {low:g} to {high:g} are allowed")


def _decoded(content: bytes) -> np.ndarray:
    return np.array(Image.open(BytesIO(content)).convert("RGB"))
