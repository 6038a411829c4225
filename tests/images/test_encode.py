"""Written files are read back exactly, or with at most the stated error."""

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from rediffuse.errors import ImageError
from rediffuse.images.decode import decode_bytes
from rediffuse.images.encode import PNG16_STEP, jpeg_bytes, png16_bytes, png_bytes, read_png16, webp_bytes

SHAPES = st.tuples(st.integers(8, 20), st.integers(8, 20), st.just(3))
PHOTO = np.random.default_rng(0).normal(128, 40, (16, 24, 3)).clip(0, 255).astype(np.uint8)


@settings(max_examples=30)
@given(arrays(np.uint8, SHAPES))
def test_png_gives_the_pixels_back(pixels: np.ndarray) -> None:
    assert np.array_equal(decode_bytes(png_bytes(pixels), "a.png").pixels, pixels)


@settings(max_examples=30)
@given(arrays(np.float32, SHAPES, elements=st.floats(0, 2, width=32)))
def test_map_comes_back_to_within_half_a_step(values: np.ndarray) -> None:
    read = read_png16(png16_bytes(values))
    assert (read.dtype, read.shape) == (np.float32, values.shape)
    assert np.abs(read.astype(np.float64) - values).max() <= PNG16_STEP / 2 + 2e-7  # and float32's own rounding
    assert read.max() <= 2


def test_every_level_of_a_map_comes_back_exactly() -> None:
    levels = (np.arange(65536 * 3) % 65536 * PNG16_STEP).astype(np.float32).reshape(256, 256, 3)
    assert np.array_equal(read_png16(png16_bytes(levels)), levels)


def test_other_programs_read_a_16_bit_map() -> None:
    values = np.linspace(0, 2, 16 * 24 * 3, dtype=np.float32).reshape(16, 24, 3)
    image = Image.open(BytesIO(png16_bytes(values)))
    assert image.size == (24, 16)
    assert np.abs(np.asarray(image) - values * 127.5).max() <= 1


@pytest.mark.parametrize("wrong", [np.full((8, 8, 3), -0.1), np.full((8, 8, 3), 2.1), np.full((8, 8, 3), np.nan)])
def test_values_that_are_no_map_are_our_own_mistake(wrong: np.ndarray) -> None:
    with pytest.raises(AssertionError):
        png16_bytes(wrong)


@settings(max_examples=30)
@given(cut=st.integers(0, 250), flipped=st.integers(8, 250))
def test_damaged_map_is_refused(cut: int, flipped: int) -> None:
    content = png16_bytes(np.linspace(0, 2, 8 * 8 * 3).reshape(8, 8, 3))
    damaged = bytearray(content)
    damaged[flipped % len(content)] ^= 1
    for broken in (content[: cut % len(content)], bytes(damaged), png_bytes(PHOTO)):
        with pytest.raises(ImageError, match=r"maps/a\.png: damaged, or not a 16-bit map"):
            read_png16(broken, "maps/a.png")


def test_quality_and_subsampling_reach_the_file() -> None:
    assert len(jpeg_bytes(PHOTO, 50)) < len(jpeg_bytes(PHOTO, 95)) < len(jpeg_bytes(PHOTO, 95, subsampling="4:4:4"))
    assert len(webp_bytes(PHOTO, 20)) < len(webp_bytes(PHOTO, 90))
    assert decode_bytes(jpeg_bytes(PHOTO), "a").codec == "JPEG"
    assert decode_bytes(webp_bytes(PHOTO), "a").codec == "WEBP"
