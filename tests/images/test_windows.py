"""Windows depend only on the pixels, lie on the grid, and are spread over the image."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rediffuse.errors import ConfigError, ImageError
from rediffuse.images.crop import center_crop, squash
from rediffuse.images.windows import (
    GRID,
    Window,
    network_inputs,
    random_windows,
    textured_windows,
)

SIZES = st.sampled_from([8, 16, 20, 32])


def grain(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def any_overlap(windows: Sequence[Window]) -> bool:
    return any(one.overlaps(other) for one, other in combinations(windows, 2))


@given(height=st.integers(32, 150), width=st.integers(32, 150), size=SIZES, number=st.integers(1, 40))
def test_windows_are_different_lie_inside_and_begin_on_the_grid(
    height: int, width: int, size: int, number: int
) -> None:
    pixels = grain(height, width)
    windows = textured_windows(pixels, size, number)
    places = ((height - size) // GRID + 1) * ((width - size) // GRID + 1)
    assert len(set(windows)) == len(windows) == min(number, places)
    for window in windows:
        assert window.top % GRID == window.left % GRID == 0
        assert window.cut(pixels).shape == (size, size, 3)


@given(
    height=st.integers(32, 150), width=st.integers(32, 150), size=SIZES, share=st.floats(0, 1), seed=st.integers(0, 9)
)
def test_none_overlap_where_there_is_room_for_all_side_by_side(
    height: int, width: int, size: int, share: float, seed: int
) -> None:
    pitch = -(-size // GRID) * GRID
    room = ((height - size) // pitch + 1) * ((width - size) // pitch + 1)
    windows = textured_windows(grain(height, width, seed), size, max(1, round(share * room)))
    assert not any_overlap(windows)


def test_same_pixels_give_the_same_windows_whatever_array_holds_them() -> None:
    pixels = grain(120, 90)
    turned_back = np.asfortranarray(pixels)
    assert (
        textured_windows(pixels, 16, 8)
        == textured_windows(pixels.copy(), 16, 8)
        == textured_windows(turned_back, 16, 8)
    )


def test_textured_areas_are_preferred_and_the_most_textured_window_comes_first() -> None:
    pixels = np.full((160, 160, 3), 128, np.uint8)
    pixels[:, 80:] = grain(160, 80) // 4 + 96
    pixels[96:112, 112:128] = grain(16, 16)
    windows = textured_windows(pixels, 16, 6)
    assert windows[0] == Window(96, 112, 16)
    assert all(window.left >= 72 for window in windows)


def test_windows_do_not_crowd_where_the_texture_is() -> None:
    pixels = np.full((256, 256, 3), 128, np.uint8)
    pixels[64:128, 64:128] = grain(64, 64)  # has room for 16 windows of 16 px
    inside = [window for window in textured_windows(pixels, 16, 16) if 48 < window.top < 128 and 48 < window.left < 128]
    assert len(inside) <= 9  # they keep 32 pixels apart: half of what 16 evenly spread ones would


def test_smooth_image_is_covered_too() -> None:
    windows = textured_windows(np.zeros((64, 64, 3), np.uint8), 16, 16)
    assert len(windows) == 16
    assert not any_overlap(windows)


def test_image_of_the_size_of_a_window_is_its_only_window() -> None:
    assert textured_windows(grain(32, 32), 32, 16) == [Window(0, 0, 32)]


def test_windows_are_copies() -> None:
    pixels = grain(32, 32)
    cut = Window(8, 16, 8).cut(pixels)
    assert np.array_equal(cut, pixels[8:16, 16:24])
    cut[:] = 0
    assert np.array_equal(pixels, grain(32, 32))


def test_random_windows_reach_every_place_and_depend_on_their_generator_alone() -> None:
    pixels = grain(40, 56)
    first, second = (random_windows(pixels, 32, 200, np.random.default_rng(1)) for _ in range(2))
    assert first == second
    assert {(window.top, window.left) for window in first} == {(top, left) for top in (0, 8) for left in (0, 8, 16, 24)}


@pytest.mark.parametrize("shape", [(31, 100), (100, 31)])
def test_smaller_image_is_refused_by_name(shape: tuple[int, int]) -> None:
    said = rf"^a\.png: {shape[1]}x{shape[0]} pixels, smaller than a window of 32x32$"
    with pytest.raises(ImageError, match=said):
        textured_windows(grain(*shape), 32, 4, "a.png")
    with pytest.raises(ImageError, match=said):
        random_windows(grain(*shape), 32, 4, np.random.default_rng(0), "a.png")


def test_a_network_gets_one_square_of_the_image_or_its_windows_as_they_are() -> None:
    pixels = grain(60, 80)
    for crop, function in (("center", center_crop), ("squash", squash)):
        squares, windows = network_inputs(pixels, 16, crop)
        assert np.array_equal(squares, function(pixels, 16)[None])
        assert windows == ()
    squares, windows = network_inputs(pixels, 16, "windows:5")
    assert list(windows) == textured_windows(pixels, 16, 5)
    for square, window in zip(squares, windows, strict=True):
        assert np.array_equal(square, pixels[window.top :, window.left :][:16, :16])


def test_windows_smaller_than_a_block_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^crop=windows:5: windows have at least 8 pixels a side, given 4$"):
        network_inputs(grain(60, 80), 4, "windows:5")
