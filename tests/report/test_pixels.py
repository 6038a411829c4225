"""The pictures of the page: their scale, their colours, and where windows are drawn."""

import io
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from rediffuse.images.windows import Window, textured_windows
from rediffuse.report.details import ERROR, PICTURE, WINDOWS, pictures_of
from rediffuse.report.pixels import (
    LONGEST,
    amplification,
    enlarged_places,
    error_of,
    error_picture,
    levels_of,
    shown_size,
    table,
)
from rediffuse.report.render import RAMP
from report.verdicts import judged, judged_by_windows, unjudged


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def test_an_image_has_three_pictures_and_one_that_was_not_judged_has_none() -> None:
    pictures = pictures_of(judged_by_windows("a.png", 8))
    assert {kind: opened(content).size for kind, content in pictures.files.items()} == {
        PICTURE: (200, 120),
        ERROR: (200, 120),
        WINDOWS: (8 * 16, 3 * 16),
    }
    assert pictures_of(unjudged("a.png")).files == {}


def test_the_error_of_a_whole_input_has_its_pixels() -> None:
    files = pictures_of(judged("a.png")).files
    assert [opened(files[kind]).size for kind in (PICTURE, ERROR, WINDOWS)] == [(16, 16), (16, 16), (16, 48)]
    assert opaque(files[ERROR]).all()


@pytest.mark.parametrize(("number", "size"), [(1, (100, 60)), (8, (200, 120))])
def test_the_error_has_one_pixel_for_each_of_the_network_and_is_transparent_beside_them(
    number: int, size: tuple[int, int]
) -> None:
    verdict = judged_by_windows("a.png", number)
    assert verdict.evidence is not None
    error = error_of(verdict.evidence)
    picture = error_picture(verdict, verdict.evidence, error)
    assert opened(picture.png).size == picture.size == size
    shown = np.asarray(opened(picture.png).convert("RGB"))
    for (left, top, side), levels in zip(picture.places, error.levels, strict=True):
        assert side == 16
        assert np.array_equal(shown[top : top + side, left : left + side], table()[levels])
    assert opaque(picture.png).sum() == number * 16**2


def test_the_error_of_a_large_image_is_drawn_smaller() -> None:
    verdict = judged_by_windows("a.png", 2)
    assert verdict.evidence is not None
    assert verdict.evidence.original is not None
    large = replace(verdict.evidence, original=replace(verdict.evidence.original, size=(4000, 3000)))
    touching = replace(verdict, windows=(Window(0, 0, 16), Window(0, 16, 16)))
    picture = error_picture(touching, large, error_of(large))
    assert picture.size == (LONGEST, 3 * LONGEST // 4)
    assert picture.places == ((0, 0, 4), (2, 0, 4))
    assert opaque(picture.png).sum() == 4 * 6


def opaque(png: bytes) -> np.ndarray:
    """Where a picture is not transparent."""
    return np.asarray(opened(png).convert("RGBA"))[..., 3] == 255


def test_the_amplification_fills_the_scale_but_does_not_overflow_it() -> None:
    for loudest in (2.0, 0.7, 0.05, 0.001):
        factor = amplification(np.linspace(0, loudest, 1000))
        assert loudest * factor <= 2.02
    assert amplification(np.full(1000, 2.0)) == 1
    assert amplification(np.zeros(10)) == 200


def test_a_larger_error_is_lighter_and_the_ends_are_those_of_the_scale() -> None:
    colours = table()[levels_of(np.linspace(0, 0.2, 64), 10)]
    luma = colours @ np.array([0.299, 0.587, 0.114])
    assert all(earlier < later for earlier, later in pairwise(luma))
    assert ["#" + bytes(table()[end].tolist()).hex() for end in (0, -1)] == [RAMP[0], RAMP[-1]]
    assert [levels_of(np.float32(end), 10) for end in (0, 0.2)] == [1, 255]


@pytest.mark.parametrize(("height", "width", "number"), [(3000, 4000, 8), (416, 416, 8), (40, 300, 4), (32, 32, 1)])
def test_enlarged_windows_do_not_overlap_and_stay_in_the_image(height: int, width: int, number: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    windows = textured_windows(pixels, 32, number)
    zoom, places = enlarged_places(windows, width, height)
    assert {side for _, _, side in places} == {32.0 * zoom}
    for left, top, side in places:
        assert 0 <= left <= width - side + 1e-6
        assert 0 <= top <= height - side + 1e-6
    if zoom > 1:
        for place, one in enumerate(places):
            for other in places[:place]:
                assert max(abs(one[0] - other[0]), abs(one[1] - other[1])) >= one[2]
    assert zoom >= (4 if height > 2000 else 1)


def test_windows_that_touch_are_not_enlarged() -> None:
    assert enlarged_places([Window(0, 0, 32), Window(0, 32, 32)], 640, 640) == (1, ((0, 0, 32), (32, 0, 32)))


def test_the_longer_side_is_shown_at_one_size() -> None:
    assert [shown_size(*size) for size in ((4000, 3000), (16, 16), (10, 1000))] == [(400, 300), (400, 400), (4, 400)]
