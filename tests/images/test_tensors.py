"""Files and pixels to tensors and back; golden values show that the original programs round down."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import golden_values
from rediffuse.errors import ConfigError, ImageError
from rediffuse.images.crop import center_crop, squash
from rediffuse.images.decode import decode
from rediffuse.images.tensors import map_to_uint8_floor, read_image, to_tensor, to_uint8, to_uint8_floor, write_image
from rediffuse.images.windows import network_inputs

LEVELS = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)


def test_every_level_comes_back() -> None:
    x_0 = to_tensor(LEVELS)
    assert (x_0.shape, x_0.min(), x_0.max()) == ((3, 16, 16), -1, 1)
    assert np.array_equal(to_uint8(x_0), LEVELS)


def test_levels_are_the_originals_to_the_bit() -> None:
    golden = LEVELS.transpose(2, 0, 1).astype(np.float32) / 127.5 - 1
    assert np.array_equal(to_tensor(LEVELS).numpy(), golden)


def test_batches_keep_their_first_axes() -> None:
    batch = np.stack([LEVELS, LEVELS[::-1]])
    assert to_tensor(batch).shape == (2, 3, 16, 16)
    assert np.array_equal(to_uint8(to_tensor(batch)), batch)


def test_values_beyond_the_range_are_clamped() -> None:
    x = torch.tensor([-7.0, 7.0]).repeat(3, 1, 1)
    assert to_uint8(x)[0].tolist() == to_uint8_floor(x)[0].tolist() == [[0] * 3, [255] * 3]


def test_the_floor_is_half_a_level_darker() -> None:
    x = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    darker = to_uint8(x).astype(int) - to_uint8_floor(x)
    assert set(np.unique(darker)) == {0, 1}
    assert darker.mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("depth", [0, 5])
def test_golden_bytes_of_reconstructions_and_maps(depth: int) -> None:
    _, golden = golden_values.load("dire_end_to_end")
    x_0, x_0_hat = golden["x_0"], golden[f"x_0_hat_{depth}"]
    assert np.array_equal(to_uint8_floor(x_0_hat), golden[f"recon_u8_{depth}"].numpy())
    assert np.array_equal(map_to_uint8_floor((x_0 - x_0_hat).abs()), golden[f"dire_u8_{depth}"].numpy())


def test_pixels_that_may_not_be_written_to_are_read_without_a_warning() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    expected = to_tensor(pixels)
    pixels.flags.writeable = False
    assert torch.equal(to_tensor(pixels), expected)


PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def test_an_image_is_read_from_a_file_from_pillow_and_from_an_array(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(PIXELS).save(path)
    expected = to_tensor(center_crop(PIXELS, 16)[None])
    for image in (path, str(path), PIXELS, Image.fromarray(PIXELS), Image.open(path), PIXELS[None]):
        assert torch.equal(read_image(image, size=16), expected)
    assert torch.equal(read_image(PIXELS, 16, crop="squash"), to_tensor(squash(PIXELS, 16)[None]))


def test_the_windows_of_images_are_read_into_one_batch() -> None:
    large = np.tile(PIXELS, (3, 2, 1))
    x_0 = read_image([large, PIXELS], size=16, crop="windows:4")
    squares = [network_inputs(pixels, 16, "windows:4")[0] for pixels in (large, PIXELS)]
    assert [len(one) for one in squares] == [4, 2]  # the second has no room for more
    assert torch.equal(x_0, to_tensor(np.concatenate(squares)))


def test_several_images_are_read_into_one_batch(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "image.png")
    both = read_image([PIXELS[::-1], tmp_path / "image.png"], size=16)
    assert both.shape == (2, 3, 16, 16)
    assert torch.equal(both[1:], read_image(PIXELS, size=16))


def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"missing\.png: cannot be read"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(ImageError, match=r"image 1: given an array \(20, 30\) uint8; \(H, W, 3\) uint8 is needed"):
        read_image([PIXELS, PIXELS[:, :, 0]])
    with pytest.raises(ConfigError, match=r"crop=centre: center, squash, windows:N are allowed; did you mean"):
        read_image(PIXELS, crop="centre")
    with pytest.raises(ConfigError, match="size=0: at least 1"):
        read_image(PIXELS, size=0)
    with pytest.raises(ConfigError, match="image: given none"):
        read_image([])


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    x_0 = to_tensor(PIXELS)
    write_image(tmp_path / "new" / "one.png", x_0)
    assert np.array_equal(decode(tmp_path / "new" / "one.png").pixels, PIXELS)
    write_image(tmp_path / "row.png", torch.stack([x_0, -x_0, x_0]), columns=3)
    assert decode(tmp_path / "row.png").pixels.shape == (20, 90, 3)
    with pytest.raises(ConfigError, match=r"x: given \(20, 30, 3\); \(3, H, W\) or \(N, 3, H, W\) is needed"):
        write_image(tmp_path / "wrong.png", torch.zeros(20, 30, 3))
