"""Arrange several images in one grid."""

import math

import numpy as np


def tile(images: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Lay images out in rows.

    Args:
        images: uint8, (N, H, W, 3), N at least 1.
        columns: None makes the grid as square as possible.

    Returns:
        uint8, (rows * H, columns * W, 3); places without an image are black.
    """
    num_images, height, width, channels = images.shape
    columns = columns or math.ceil(math.sqrt(num_images))
    rows = math.ceil(num_images / columns)
    places = np.zeros((rows * columns, height, width, channels), images.dtype)
    places[:num_images] = images
    grid = places.reshape(rows, columns, height, width, channels)
    return np.ascontiguousarray(grid.swapaxes(1, 2).reshape(rows * height, columns * width, channels))
