"""Images of any size become squares; test_decode.py compares the centre crop with the original's golden values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rediffuse.images.crop import CROPS, center_crop, random_crop, squash

SIDES = st.integers(8, 150)


def ramp(height: int, width: int) -> np.ndarray:
    """Red grows downwards, green to the right."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, :, 0] = np.linspace(0, 255, height)[:, None]
    pixels[:, :, 1] = np.linspace(0, 255, width)
    return pixels


@given(height=SIDES, width=SIDES, size=st.integers(1, 64), seed=st.integers(0, 9))
def test_every_crop_of_every_shape_is_the_square(height: int, width: int, size: int, seed: int) -> None:
    pixels = ramp(height, width)
    cut = [crop(pixels, size) for crop in CROPS.values()] + [random_crop(pixels, size, np.random.default_rng(seed))]
    assert {(square.shape, square.dtype.name) for square in cut} == {((size, size, 3), "uint8")}


def test_center_crop_of_the_wanted_square_changes_nothing() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    assert np.array_equal(center_crop(pixels, 32), pixels)


def test_center_crop_halves_by_means() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    means = pixels.reshape(32, 2, 32, 2, 3).mean((1, 3))
    assert np.abs(center_crop(pixels, 32) - means).max() <= 1  # columns, then rows are rounded


def test_center_crop_cuts_the_middle_and_squash_keeps_all() -> None:
    wide = ramp(32, 96)
    assert center_crop(wide, 32)[0, :, 1].tolist() == wide[0, 32:64, 1].tolist()
    assert squash(wide, 32)[0, 0, 1] < 8
    assert squash(wide, 32)[0, -1, 1] > 247


def test_random_crop_spans_the_stated_fractions_and_reaches_every_border() -> None:
    rng = np.random.default_rng(0)
    cut = [random_crop(ramp(128, 160), 32, rng) for _ in range(200)]
    spans = [int(square[-1, 0, 0]) - int(square[0, 0, 0]) for square in cut]
    assert min(spans) == pytest.approx(0.8 * 255, abs=8)
    assert max(spans) == pytest.approx(255, abs=8)
    assert min(square[0, 0, 1] for square in cut) < 8
    assert max(square[0, -1, 1] for square in cut) > 247


def test_random_crop_depends_on_its_generator_alone() -> None:
    first, second = (random_crop(ramp(90, 70), 32, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first, second)
