"""Pixels to tensors and back; the originals round down, and the golden bytes say so."""

import numpy as np
import pytest
import torch

import golden_values
from rediffuse.images.tensors import map_to_uint8_floor, to_tensor, to_uint8, to_uint8_floor

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
