"""Cut windows out of an image: squares of the network's input size, without resampling.

A network of 32 pixels judges a photograph of 4,000 pixels by several windows of 32 pixels. All windows begin on the
grid of 8 pixels in which JPEG codes blocks, so every window of a file holds complete blocks at the same phase.
"""

import math
from dataclasses import dataclass

import numpy as np

from rediffuse.errors import ConfigError, ImageError
from rediffuse.images.config import num_windows
from rediffuse.images.crop import CROPS

GRID = 8
"""The first row and column of a window are multiples of this: the side of a JPEG block."""


@dataclass(frozen=True)
class Window:
    """A square of an image."""

    top: int
    """First row, a multiple of `GRID`."""
    left: int
    """First column, a multiple of `GRID`."""
    size: int
    """Side in pixels."""

    def cut(self, pixels: np.ndarray) -> np.ndarray:
        """A copy of the square (size, size, 3) of `pixels` (H, W, 3)."""
        return pixels[self.top : self.top + self.size, self.left : self.left + self.size].copy()

    def overlaps(self, other: "Window") -> bool:
        """Whether the two share a pixel."""
        return all(
            -self.size < here - there < other.size for here, there in ((self.top, other.top), (self.left, other.left))
        )


def network_inputs(
    pixels: np.ndarray, size: int, crop: str, name: str = "image"
) -> tuple[np.ndarray, tuple[Window, ...]]:
    """The squares of an image that a network gets.

    Args:
        pixels: uint8, (H, W, 3).
        size: side of a square, in pixels; for windows at least 8.
        crop: `center` or `squash` for one square, or `windows:N` for up to N `textured_windows`.
        name: the image's name in errors.

    Returns:
        uint8, (N, size, size, 3), and where the squares lie in the image: N windows; none where the square is not one.

    Raises:
        ImageError: the image is smaller than a window.
        ConfigError: another name of a crop, or too small a window.
    """
    number = num_windows(crop)
    if number is None:
        return CROPS[crop](pixels, size)[None], ()
    if size < GRID:
        raise ConfigError(f"crop={crop}: windows have at least {GRID} pixels a side, given {size}")
    windows = textured_windows(pixels, size, number, name)
    return np.stack([window.cut(pixels) for window in windows]), tuple(windows)


def textured_windows(pixels: np.ndarray, size: int, number: int, name: str = "image") -> list[Window]:
    """Choose windows with much texture, spread over the image, and return the most textured one first.

    The choice depends only on the pixels and is computed in integers: the same pixels give the same windows on every
    machine. Texture is the sum of the absolute differences of neighbouring pixels in luma. The windows are chosen in
    the order of their texture. Each keeps a distance from all earlier ones: at least half the distance between `number`
    evenly spread windows. If the image has room for `number` windows side by side, they do not overlap.

    Args:
        pixels: uint8, (H, W, 3).
        size: side of a window, in pixels, at least 8.
        number: how many windows, at least 1.
        name: the image's name in errors.

    Returns:
        `number` different windows; fewer where the image has fewer positions on the grid.

    Raises:
        ImageError: the image is smaller than a window.
    """
    assert size >= GRID, size
    assert number >= 1, number
    height, width = _check_size(pixels, size, name)
    texture = _texture(pixels, size)
    even = math.isqrt(height * width // number)
    for spacing in (max(size, even // 2), size):
        if len(windows := _apart(texture, size, number, spacing)) == number:
            return windows
    pitch = math.ceil(size / GRID)  # in steps of the grid
    if texture[::pitch, ::pitch].size >= number:  # they fit side by side
        side_by_side = np.full_like(texture, -1)
        side_by_side[::pitch, ::pitch] = texture[::pitch, ::pitch]
        return _apart(side_by_side, size, number, size)
    spacing = size
    while len(windows) < number and spacing > GRID:
        spacing = max(GRID, spacing // 2)
        windows = _apart(texture, size, number, spacing)
    return windows


def random_windows(
    pixels: np.ndarray, size: int, number: int, rng: np.random.Generator, name: str = "image"
) -> list[Window]:
    """Choose windows at random positions of the grid, independently, so smooth areas are as frequent as in the image.

    Arguments and errors as `textured_windows`; `rng` draws all rows, then all columns.
    """
    height, width = _check_size(pixels, size, name)
    rows = GRID * rng.integers((height - size) // GRID, size=number, endpoint=True)
    columns = GRID * rng.integers((width - size) // GRID, size=number, endpoint=True)
    return [Window(int(top), int(left), size) for top, left in zip(rows, columns, strict=True)]


def _check_size(pixels: np.ndarray, size: int, name: str) -> tuple[int, int]:
    height, width = pixels.shape[:2]
    if min(height, width) < size:
        raise ImageError(f"{name}: {width}x{height} pixels, smaller than a window of {size}x{size}")
    return height, width


def _texture(pixels: np.ndarray, size: int) -> np.ndarray:
    """The texture of the window at every position of the grid, int64, (rows, columns): sums over complete blocks."""
    height, width = pixels.shape[:2]
    luma = pixels.astype(np.int32) @ np.array([299, 587, 114], np.int32)  # (H, W), 1000 times BT.601's
    differences = np.zeros((height, width), np.int32)
    differences[1:] += np.abs(np.diff(luma, axis=0))
    differences[:, 1:] += np.abs(np.diff(luma, axis=1))
    rows, columns = height // GRID, width // GRID
    blocks = differences[: GRID * rows, : GRID * columns].reshape(rows, GRID, columns, GRID).sum((1, 3), dtype=np.int64)
    sums = np.zeros((rows + 1, columns + 1), np.int64)  # of all blocks above and to the left
    sums[1:, 1:] = blocks.cumsum(0).cumsum(1)
    span = size // GRID
    texture = sums[span:, span:] - sums[:-span, span:] - sums[span:, :-span] + sums[:-span, :-span]
    return texture[: (height - size) // GRID + 1, : (width - size) // GRID + 1]


def _apart(texture: np.ndarray, size: int, number: int, spacing: int) -> list[Window]:
    """At most `number` windows: each is the most textured one at least `spacing` pixels from all earlier ones."""
    left_over = texture.copy()
    distance = math.ceil(spacing / GRID)  # in steps of the grid
    windows: list[Window] = []
    while len(windows) < number:
        row, column = np.unravel_index(left_over.argmax(), left_over.shape)  # of equal ones the first
        if left_over[row, column] < 0:
            break
        windows.append(Window(GRID * int(row), GRID * int(column), size))
        rows = slice(max(0, row - distance + 1), row + distance)
        left_over[rows, max(0, column - distance + 1) : column + distance] = -1
    return windows
