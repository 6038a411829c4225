"""The pictures of a verdict as image files: the image, the error of its reconstruction on it, the windows enlarged."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np
from PIL import Image

from rediffuse.detection.verdict import Evidence, Verdict
from rediffuse.images.encode import jpeg_bytes, palette_png_bytes
from rediffuse.images.windows import Window
from rediffuse.report.render import RAMP

LONGEST = 400
"""The longer side of a picture on the page, in CSS pixels."""
QUALITY = 75
"""Of the JPEG files; a page of thousands of images must stay small enough to open."""
AMPLIFICATIONS = (1, 2, 3, 4, 6, 8, 10, 15, 20, 30, 40, 60, 80, 100, 150, 200)
MOST_ZOOM = 12
"""Largest enlargement of a window on the picture of the error."""


@dataclass(frozen=True, kw_only=True)
class ShownError:
    """|x_0 - x_0_hat| of each row, the mean over channels."""

    values: np.ndarray
    """(N, S, S) in [0, 2]."""
    factor: int
    """The scale of colours ends at 2 / factor."""
    levels: np.ndarray
    """uint8 (N, S, S), the place of each value in `table`."""


@dataclass(frozen=True, kw_only=True)
class ErrorPicture:
    """The error in colours, for the place over a gray picture of the image; elsewhere it is transparent."""

    png: bytes
    """A pixel of a window is one of the network's input, or the mean of several in a large image."""
    size: tuple[int, int]
    """Width and height of the PNG in pixels."""
    zoom: int
    """How many times larger than in the image the windows are drawn, each near its own place."""
    places: tuple[tuple[int, int, int], ...]
    """Left, top and side of each drawn window, in pixels of the PNG."""


def picture(evidence: Evidence) -> bytes:
    """The image as a JPEG file; of an image that the network gets as a whole, its input where nothing else is known."""
    return jpeg_bytes(_pixels(evidence), QUALITY)


def size_of(evidence: Evidence) -> tuple[int, int]:
    """Width and height in pixels of the image that `picture` shows."""
    if evidence.original is not None:
        return evidence.original.size
    side = evidence.x_0.shape[-1]
    return side, side


def shown_size(width: int, height: int) -> tuple[int, int]:
    """Width and height in CSS pixels of an image of this size."""
    return max(1, round(LONGEST * width / max(width, height))), max(1, round(LONGEST * height / max(width, height)))


def error_of(evidence: Evidence) -> ShownError:
    values = np.abs(evidence.x_0 - evidence.x_0_hat).mean(axis=1)
    factor = amplification(values)
    return ShownError(values=values, factor=factor, levels=levels_of(values, factor))


def amplification(error: np.ndarray) -> int:
    """The largest factor of `AMPLIFICATIONS` with which 99.5 % of an error in [0, 2] stays within the scale."""
    place = int(0.995 * error.size)
    large = float(np.partition(error.ravel(), place)[place])  # np.quantile takes ten times as long
    return max((factor for factor in AMPLIFICATIONS if large * factor <= 2), default=1)


def levels_of(error: np.ndarray, factor: int) -> np.ndarray:
    """The places in `table` of an error (..., H, W) in [0, 2], uint8, from 1 to 255; from 2 / factor on the last."""
    return np.clip(error * (factor * 127.5), 1, 255).astype(np.uint8)


@cache
def table() -> np.ndarray:
    """`RAMP` in 256 steps, uint8 (256, 3)."""
    anchors = np.array([[int(colour[k : k + 2], 16) for k in (1, 3, 5)] for colour in RAMP])
    levels = np.linspace(0, 1, 256)
    channels = [np.interp(levels, np.linspace(0, 1, len(RAMP)), channel) for channel in anchors.T]
    return np.stack(channels, axis=1).astype(np.uint8)


def error_picture(verdict: Verdict, evidence: Evidence, error: ShownError) -> ErrorPicture:
    """The error of the windows, each near its place in the image; without windows that of the whole input."""
    side = error.levels.shape[-1]
    if not verdict.windows:
        return ErrorPicture(png=_coloured(error.levels[0]), size=(side, side), zoom=1, places=())
    width, height = size_of(evidence)
    zoom, enlarged = enlarged_places(verdict.windows, width, height)
    whole = enlarged[0][2]  # the side of every drawn window in pixels of the image
    scale = min(side / whole, LONGEST / max(width, height))
    drawn = max(4, round(scale * whole))
    across, down = max(drawn, round(scale * width)), max(drawn, round(scale * height))
    places = tuple(
        (min(round(scale * left), across - drawn), min(round(scale * top), down - drawn), drawn)
        for left, top, _ in enlarged
    )
    canvas = np.zeros((down, across), np.uint8)
    for (left, top, _), levels in zip(places, _reduced(error.levels, drawn), strict=True):
        canvas[top : top + drawn, left : left + drawn] = levels
    return ErrorPicture(png=_coloured(canvas), size=(across, down), zoom=zoom, places=places)


def enlarged_places(
    windows: Sequence[Window], width: int, height: int
) -> tuple[int, tuple[tuple[float, float, float], ...]]:
    """The largest enlargement with which the windows do not overlap, and left, top and side of each.

    A window that touches an edge of the image still touches it, and the others are moved in proportion. An enlarged
    window takes at most a third of the shorter side of the image.
    """

    def enlarged(zoom: int) -> tuple[tuple[float, float, float], ...]:
        def moved(place: int, size: int, whole: int) -> float:
            return place * (whole - zoom * size) / max(1, whole - size)

        return tuple(
            (moved(one.left, one.size, width), moved(one.top, one.size, height), float(zoom * one.size))
            for one in windows
        )

    largest = min(MOST_ZOOM, min(width, height) // (3 * windows[0].size))
    for zoom in range(largest, 1, -1):
        places = enlarged(zoom)
        if not any(_overlap(*pair) for pair in combinations(places, 2)):
            return zoom, places
    return 1, enlarged(1)


def strip(evidence: Evidence, error: ShownError) -> bytes:
    """The windows, their reconstructions and their errors in three rows, one column for each window, as a JPEG."""
    images = _levels(np.stack([evidence.x_0, evidence.x_0_hat]))
    rows = np.concatenate([images, table().take(error.levels[None], axis=0)])  # (3, N, S, S, 3)
    num_rows, number, side = rows.shape[:3]
    pixels = rows.swapaxes(1, 2).reshape(num_rows * side, number * side, 3)
    return jpeg_bytes(pixels, 85, subsampling="4:4:4")  # a few pixels, which are to be compared one by one


def _reduced(levels: np.ndarray, drawn: int) -> np.ndarray:
    """uint8 (N, S, S) to (N, drawn, drawn), the means of pixels."""
    number, side = levels.shape[:2]
    if drawn == side:
        return levels
    column = Image.fromarray(levels.reshape(number * side, side))
    small = column.resize((drawn, number * drawn), Image.Resampling.BOX)
    return np.asarray(small).reshape(number, drawn, drawn)


def _coloured(levels: np.ndarray) -> bytes:
    """A PNG of places in `table`, uint8 (H, W); 0 is transparent."""
    return palette_png_bytes(levels, table())


def _pixels(evidence: Evidence) -> np.ndarray:
    return _levels(evidence.x_0)[0] if evidence.original is None else evidence.original.pixels


def _levels(images: np.ndarray) -> np.ndarray:
    """(..., 3, S, S) in [-1, 1] to uint8 (..., S, S, 3); a reconstruction without clipping may have values outside."""
    levels = images * np.float32(127.5)
    levels += np.float32(128)  # 127.5, and .5 for rounding
    return np.moveaxis(np.clip(levels, 0, 255, out=levels).astype(np.uint8), -3, -1)


def _overlap(one: tuple[float, float, float], other: tuple[float, float, float]) -> bool:
    return abs(one[0] - other[0]) < one[2] and abs(one[1] - other[1]) < one[2]
