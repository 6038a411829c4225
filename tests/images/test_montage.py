from io import BytesIO

import numpy as np
from PIL import Image

from rediffuse.images.encode import gif_bytes
from rediffuse.images.montage import tile

IMAGES = np.random.default_rng(0).integers(1, 256, (5, 2, 3, 3), dtype=np.uint8)


def test_a_grid_is_as_square_as_can_be_and_black_where_nothing_is_left() -> None:
    grid = tile(IMAGES)
    assert grid.shape == (2 * 2, 3 * 3, 3)
    np.testing.assert_array_equal(grid[:2, 3:6], IMAGES[1])
    np.testing.assert_array_equal(grid[2:, :3], IMAGES[3])
    assert not grid[2:, 6:].any()


def test_a_strip_is_one_row() -> None:
    np.testing.assert_array_equal(tile(IMAGES, columns=5), np.concatenate(IMAGES, axis=1))


def test_a_gif_has_every_frame_and_repeats() -> None:
    frames = np.stack([np.full((8, 8, 3), level, np.uint8) for level in (0, 100, 200)])
    with Image.open(BytesIO(gif_bytes(frames))) as gif:
        assert gif.info["loop"] == 0
        assert gif.n_frames == 3
        for place, frame in enumerate(frames):
            gif.seek(place)
            np.testing.assert_array_equal(np.asarray(gif.convert("RGB")), frame)
