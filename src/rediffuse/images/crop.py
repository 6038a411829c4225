"""Crop or scale an image of any size to the square input of a network, as guided-diffusion does (Pillow's filters)."""

import math
from collections.abc import Callable
from typing import get_args

import numpy as np
from PIL import Image

from rediffuse.images.config import Crop


def center_crop(pixels: np.ndarray, size: int) -> np.ndarray:
    """Scale the shorter side to `size` and cut out the middle square.

    Args:
        pixels: uint8, (H, W, 3).
        size: side of the square, in pixels.

    Returns:
        uint8, (size, size, 3); bit-identical to guided-diffusion's data loader.
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
    """Cut out a random square whose side is between `min_fraction` and `max_fraction` of the shorter side.

    Args:
        pixels: uint8, (H, W, 3).
        size: side of the square, in pixels.
        rng: draws the scale, then the row, then the column.
        min_fraction: in (0, 1].
        max_fraction: in [min_fraction, 1].

    Returns:
        uint8, (size, size, 3); same distribution as guided-diffusion's augmentation.
    """
    assert 0 < min_fraction <= max_fraction <= 1, (min_fraction, max_fraction)
    shorter = int(rng.integers(math.ceil(size / max_fraction), math.ceil(size / min_fraction), endpoint=True))
    scaled = _scale_shorter_side(pixels, shorter)
    top = int(rng.integers(scaled.shape[0] - size, endpoint=True))
    left = int(rng.integers(scaled.shape[1] - size, endpoint=True))
    return _cut(scaled, top, left, size)


def squash(pixels: np.ndarray, size: int) -> np.ndarray:
    """Scale both sides to `size`: keeps the whole image, changes its proportions.

    Args:
        pixels: uint8, (H, W, 3).
        size: side of the square, in pixels.

    Returns:
        uint8, (size, size, 3).
    """
    return np.array(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC))


CROPS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {"center": center_crop, "squash": squash}
"""The crop functions, by their names in `Crop`."""
assert tuple(CROPS) == get_args(Crop)


def _scale_shorter_side(pixels: np.ndarray, shorter: int) -> np.ndarray:
    image = Image.fromarray(pixels)
    # Halve by averaging first, as for the training images: Pillow's bicubic filter alone gives other pixels.
    while min(image.size) >= 2 * shorter:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = shorter / min(image.size)
    width, height = round(image.width * scale), round(image.height * scale)
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def _cut(pixels: np.ndarray, top: int, left: int, size: int) -> np.ndarray:
    return pixels[top : top + size, left : left + size].copy()
