"""The pictures of a verdict as image files: the image, the error of its reconstruction on it, the windows enlarged."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np
from PIL import Image

from rediffuse.detection.verdict import Evidence, Verdict
from rediffuse.images.encode import jpeg_bytes
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
    colours: np.ndarray
    """uint8 (N, S, S, 3)."""


@dataclass(frozen=True, kw_only=True)
class ErrorPicture:
    """The error of the windows, drawn over the image in gray."""

    jpeg: bytes
    zoom: int
    """How many times larger than in the image the windows are drawn, each near its own place."""
    places: tuple[tuple[float, float, float], ...]
    """Left, top and side of each drawn window, in pixels of the image."""


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
    return ShownError(values=values, factor=factor, colours=coloured(values, factor))


def amplification(error: np.ndarray) -> int:
    """The largest factor of `AMPLIFICATIONS` with which 99.5 % of an error in [0, 2] stays within the scale."""
    place = int(0.995 * error.size)
    large = float(np.partition(error.ravel(), place)[place])  # np.quantile takes ten times as long
    return max((factor for factor in AMPLIFICATIONS if large * factor <= 2), default=1)


def coloured(error: np.ndarray, factor: int) -> np.ndarray:
    """An error (..., H, W) in [0, 2] in the colours of `RAMP`, uint8 (..., H, W, 3); from 2 / factor on the last."""
    return _table().take(np.clip(error * (factor * 127.5), 0, 255).astype(np.uint8), axis=0)


def error_picture(verdict: Verdict, evidence: Evidence, error: ShownError) -> ErrorPicture:
    """The error in colours: of windows on the image, which is gray and darker; of a whole input alone."""
    if not verdict.windows:
        side = shown_size(*error.values.shape[1:])[0]
        enlarged = Image.fromarray(error.colours[0]).resize((side, side), Image.Resampling.NEAREST)
        return ErrorPicture(jpeg=jpeg_bytes(enlarged, QUALITY), zoom=1, places=())
    width, height = size_of(evidence)
    zoom, places = enlarged_places(verdict.windows, width, height)
    canvas = Image.fromarray(_pixels(evidence)).convert("L").point([level // 2 for level in range(256)]).convert("RGB")
    scale = canvas.width / width
    number, side = error.values.shape[:2]
    drawn = max(4, round(places[0][2] * scale))  # all windows have one size
    kind = Image.Resampling.NEAREST if drawn >= side else Image.Resampling.BOX
    column = Image.fromarray(error.colours.reshape(number * side, side, 3)).resize((drawn, number * drawn), kind)
    for place, (left, top, _) in enumerate(places):
        square = column.crop((0, place * drawn, drawn, (place + 1) * drawn))
        canvas.paste(square, (round(left * scale), round(top * scale)))
    return ErrorPicture(jpeg=jpeg_bytes(canvas, QUALITY), zoom=zoom, places=places)


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
    rows = (_levels(evidence.x_0), _levels(evidence.x_0_hat), error.colours)
    together = np.concatenate([np.concatenate([*row], axis=1) for row in rows])
    return jpeg_bytes(together, 85, subsampling="4:4:4")  # a few pixels, which are to be compared one by one


@cache
def _table() -> np.ndarray:
    """`RAMP` in 256 steps, uint8 (256, 3)."""
    anchors = np.array([[int(colour[k : k + 2], 16) for k in (1, 3, 5)] for colour in RAMP])
    levels = np.linspace(0, 1, 256)
    channels = [np.interp(levels, np.linspace(0, 1, len(RAMP)), channel) for channel in anchors.T]
    return np.stack(channels, axis=1).astype(np.uint8)


def _pixels(evidence: Evidence) -> np.ndarray:
    return _levels(evidence.x_0)[0] if evidence.original is None else evidence.original.pixels


def _levels(images: np.ndarray) -> np.ndarray:
    """(N, 3, S, S) in [-1, 1] to uint8 (N, S, S, 3); a reconstruction without clipping may have values outside."""
    return np.clip((images + 1) * 127.5, 0, 255).round().astype(np.uint8).transpose(0, 2, 3, 1)


def _overlap(one: tuple[float, float, float], other: tuple[float, float, float]) -> bool:
    return abs(one[0] - other[0]) < one[2] and abs(one[1] - other[1]) < one[2]
