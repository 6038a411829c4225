"""An image of any size to the square that a network sees, as guided-diffusion makes it (Pillow's filters)."""

import math
from collections.abc import Callable

import numpy as np
from PIL import Image

from rediffuse.images.config import Crop


def center_crop(pixels: np.ndarray, size: int) -> np.ndarray:
    """Scale the shorter side to `size` and cut the middle.

    Args:
        pixels: uint8, (H, W, 3).
        size: side of the square, in pixels.

    Returns:
        uint8, (size, size, 3); to the bit what guided-diffusion's data loader makes.
    """
    scaled = _scale_shorter_side(pixels, size)
    return _cut(scaled, (scaled.shape[0] - size) // 2, (scaled.shape[1] - size) // 2, size)


def random_crop(
    pixels: np.ndarray,
    size: int,
    rng: np.random.Generator,
    *,
    min_fraction: float = 0.8,
    max_fraction: float = 1.0,
) -> np.ndarray:
    """Cut a square at random that spans between `min_fraction` and `max_fraction` of the shorter side.

    Args:
        pixels: uint8, (H, W, 3).
        size: side of the square, in pixels.
        rng: draws the scale, then the row, then the column.
        min_fraction: in (0, 1].
        max_fraction: in [min_fraction, 1].

    Returns:
        uint8, (size, size, 3); distributed as guided-diffusion's augmentation.
    """
    assert 0 < min_fraction <= max_fraction <= 1, (min_fraction, max_fraction)
    shorter = int(rng.integers(math.ceil(size / max_fraction), math.ceil(size / min_fraction), endpoint=True))
    scaled = _scale_shorter_side(pixels, shorter)
    top = int(rng.integers(scaled.shape[0] - size, endpoint=True))
    left = int(rng.integers(scaled.shape[1] - size, endpoint=True))
    return _cut(scaled, top, left, size)


def squash(pixels: np.ndarray, size: int) -> np.ndarray:
    """Scale both sides to `size`, which keeps the whole image and loses its proportions.

    Args:
        pixels: uint8, (H, W, 3).
        size: side of the square, in pixels.

    Returns:
        uint8, (size, size, 3).
    """
    return np.array(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC))


CROPS: dict[Crop, Callable[[np.ndarray, int], np.ndarray]] = {"center": center_crop, "squash": squash}
"""By the name that settings carry."""


def _scale_shorter_side(pixels: np.ndarray, shorter: int) -> np.ndarray:
    image = Image.fromarray(pixels)
    # Halving by means first: Pillow's bicubic filter alone would give other numbers than the networks were trained on.
    while min(image.size) >= 2 * shorter:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = shorter / min(image.size)
    width, height = round(image.width * scale), round(image.height * scale)
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def _cut(pixels: np.ndarray, top: int, left: int, size: int) -> np.ndarray:
    return pixels[top : top + size, left : left + size].copy()
