"""Arrange several images in one grid."""

import math

import numpy as np


def tile(images: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Lay images out in rows.

    Args:
        images: (N, H, W, C), N at least 1.
        columns: None makes the grid as square as possible.

    Returns:
        (rows * H, columns * W, C); places without an image are 0.
    """
    num_images, height, width, channels = images.shape
    columns = columns or math.ceil(math.sqrt(num_images))
    rows = math.ceil(num_images / columns)
    places = np.zeros((rows * columns, height, width, channels), images.dtype)
    places[:num_images] = images
    grid = places.reshape(rows, columns, height, width, channels)
    return np.ascontiguousarray(grid.swapaxes(1, 2).reshape(rows * height, columns * width, channels))
