"""The radial bands are a partition of the frequencies of an image."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rediffuse.errors import ConfigError
from rediffuse.models.frequency import radial_bands


@given(height=st.integers(1, 40), width=st.integers(1, 40), num_bands=st.integers(2, 12))
def test_bands_sum_to_one_everywhere(height: int, width: int, num_bands: int) -> None:
    bands = radial_bands(height, width, num_bands)
    assert bands.shape == (num_bands, height, width // 2 + 1)
    assert bands.min() >= 0
    torch.testing.assert_close(bands.sum(0), torch.ones(height, width // 2 + 1))


def test_first_band_has_the_mean_and_last_band_the_checkerboard() -> None:
    bands = radial_bands(16, 16)
    assert bands[:, 0, 0].tolist() == [1, 0, 0, 0, 0, 0, 0, 0]
    assert bands[:, 8, 8].tolist() == pytest.approx([0, 0, 0, 0, 0, 0, 0, 1], abs=1e-6)


def test_the_band_of_a_frequency_does_not_depend_on_the_resolution() -> None:
    torch.testing.assert_close(radial_bands(32, 64)[:, ::2, ::4], radial_bands(16, 16))


def test_bands_made_in_inference_mode_can_be_trained_with() -> None:
    with torch.inference_mode():
        bands = radial_bands(6, 10, 3)
    gain = torch.ones(3, 1, 1, requires_grad=True)
    (gain * bands).sum().backward()
    assert gain.grad is not None


def test_bands_are_cached() -> None:
    assert radial_bands(16, 16, 8, dtype=torch.float64) is radial_bands(16, 16, 8, dtype=torch.float64)


def test_one_band_is_refused() -> None:
    with pytest.raises(ConfigError, match="num_bands=1: at least 2"):
        radial_bands(16, 16, 1)
