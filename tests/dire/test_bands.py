"""Band energies and coherences: identities of the Fourier transform, and cases with a known result."""

import math

import pytest
import torch

from golden_values import rnd
from rediffuse.dire.bands import EPS, band_maps, band_profile, log_band_energies, radial_means, without_middle
from rediffuse.models.frequency import NUM_BANDS


def cosine(cycles: int, side: int = 32) -> torch.Tensor:
    """cos along x with this number of cycles per width, (1, 3, side, side)."""
    x = torch.arange(side, dtype=torch.float64)
    return torch.cos(2 * math.pi * cycles * x / side).float().expand(1, 3, side, side)


@pytest.mark.parametrize("size", [(16, 16), (15, 17), (12, 20)])
def test_band_maps_sum_to_the_error(size: tuple[int, int]) -> None:
    error = rnd("error", 2, 3, *size)
    assert torch.allclose(band_maps(error).sum(dim=1), error, atol=1e-5)


@pytest.mark.parametrize("size", [(16, 16), (15, 17), (12, 20)])
def test_energies_are_the_mean_squares_of_the_band_maps(size: tuple[int, int]) -> None:
    x_0, x_0_hat = rnd("x_0", 2, 3, *size).clamp(-1, 1), rnd("x_0_hat", 2, 3, *size).clamp(-1, 1)
    image, returned, error = (band_maps(x) for x in (x_0, x_0_hat, x_0 - x_0_hat))
    profile = band_profile(x_0, x_0_hat)

    def mean(product: torch.Tensor) -> torch.Tensor:
        return product.mean(dim=(2, 3, 4)) + EPS

    assert torch.allclose(profile.energies, (mean(error**2) / mean(image**2)).log(), atol=1e-4)
    coherences = mean(image * returned) / (mean(image**2) * mean(returned**2)).sqrt()
    assert torch.allclose(profile.coherences, coherences, atol=1e-4)
    assert torch.allclose(log_band_energies(x_0), mean(image**2).log(), atol=1e-4)


@pytest.mark.parametrize("band", [1, 3, 4])
def test_cosine_lands_in_its_band(band: int) -> None:
    cycles = round(band / (NUM_BANDS - 1) * math.sqrt(0.5) * 32)
    energies = log_band_energies(cosine(cycles)).exp()[0]
    assert energies.argmax() == band
    assert energies[band] > 0.8 * energies.sum()


def test_returned_unchanged_has_the_floor_of_e_and_c_of_1() -> None:
    x_0 = rnd("x_0", 2, 3, 16, 16).clamp(-1, 1)
    profile = band_profile(x_0, x_0)
    assert torch.allclose(profile.energies, math.log(EPS) - log_band_energies(x_0), atol=1e-5)
    assert torch.allclose(profile.coherences, torch.ones(2, NUM_BANDS))


def test_coherence_is_never_beyond_1_by_rounding() -> None:
    x_0 = 100 * rnd("x_0", 100, 3, 8, 8)
    x_0_hat = x_0 + 1e-4 * rnd("noise", 100, 3, 8, 8)
    assert band_profile(x_0, x_0_hat).coherences.max() == 1
    assert band_profile(x_0, -x_0_hat).coherences.min() == -1


def test_bands_can_be_fewer_and_broader() -> None:
    x_0 = rnd("x_0", 2, 3, 16, 16).clamp(-1, 1)
    assert band_maps(x_0, 3).shape == (2, 3, 3, 16, 16)
    assert band_profile(x_0, -x_0, 3).num_bands == log_band_energies(x_0, 3).shape[1] == 3


def test_numbers_are_computed_on_the_device_of_the_images() -> None:
    x_0 = torch.zeros(2, 3, 16, 16, device="meta")
    assert band_profile(x_0, x_0).energies.device.type == band_maps(x_0).device.type == "meta"


def test_flat_image_has_finite_numbers() -> None:
    flat = torch.zeros(1, 3, 16, 16)
    profile = band_profile(flat, flat)
    assert torch.equal(profile.energies, torch.zeros(1, NUM_BANDS))
    assert torch.equal(profile.coherences, torch.ones(1, NUM_BANDS))


def test_negative_of_an_image_has_c_of_minus_1() -> None:
    x_0 = rnd("x_0", 1, 3, 16, 16).clamp(-1, 1)
    assert torch.allclose(band_profile(x_0, -x_0).coherences, -torch.ones(1, NUM_BANDS), atol=1e-3)


def test_error_in_one_band_leaves_the_others_alone() -> None:
    x_0 = rnd("x_0", 1, 3, 32, 32).clamp(-1, 1) / 2
    energies = band_profile(x_0, x_0 - 0.4 * cosine(10)).energies[0]
    assert energies.argmax() == 3
    assert energies[[0, 1, 5, 6, 7]].max() < -5


def test_profile_of_an_image_does_not_depend_on_its_neighbours() -> None:
    x_0, x_0_hat = rnd("x_0", 3, 3, 16, 16).clamp(-1, 1), rnd("x_0_hat", 3, 3, 16, 16).clamp(-1, 1)
    together, alone = band_profile(x_0, x_0_hat), band_profile(x_0[1:2], x_0_hat[1:2])
    assert torch.allclose(together.energies[1:2], alone.energies, atol=1e-6)
    assert torch.allclose(together.coherences[1:2], alone.coherences, atol=1e-6)


def test_an_image_without_its_middle_keeps_its_other_bands() -> None:
    x_0 = 0.2 * rnd("x_0", 2, 3, 16, 16)
    parts = band_maps(x_0)
    torch.testing.assert_close(without_middle(x_0), x_0 - parts[:, 3:6].sum(dim=1), atol=1e-5, rtol=0)


def test_an_image_without_its_middle_stays_an_image() -> None:
    assert without_middle(3 * rnd("x_0", 2, 3, 16, 16)).abs().max() <= 1


def test_white_noise_has_its_variance_at_every_frequency() -> None:
    noise, error = rnd("noise", 200, 3, 16, 16), rnd("error", 200, 3, 16, 16)
    powers = radial_means(band_profile(0.3 * noise, 0.3 * noise - 0.1 * error).powers.mean(dim=0))
    expected = torch.tensor([[0.09], [0.1], [0.01]]).expand(3, 12)
    torch.testing.assert_close(powers, expected, rtol=0.2, atol=0)


def test_a_wave_shows_at_its_own_frequency_alone() -> None:
    powers = radial_means(band_profile(cosine(5), torch.zeros_like(cosine(5))).powers[0])
    assert powers.argmax(dim=1).tolist() == [5, 0, 5]
    assert powers[0].sum().item() == pytest.approx(powers[0].max().item(), rel=1e-4)
    assert not powers[1].any()


def test_the_frequencies_of_an_oblong_image_are_counted_along_its_longer_side() -> None:
    wave = cosine(5)[..., :20, :]
    assert radial_means(band_profile(wave, wave).powers[0])[0].argmax() == 5
