import dataclasses
import io

import numpy as np
import pytest
import torch
from PIL import Image

from detection.conftest import SETTINGS
from rediffuse.detection.features import FEATURES, INPUTS, MapInput, band_range, detector_input, feature_set
from rediffuse.dire.bands import band_maps, band_profile, log_band_energies
from rediffuse.errors import ConfigError
from rediffuse.models.frequency import NUM_BANDS, radial_bands

LABELS = torch.arange(6) % 2
WINDOWS = dataclasses.replace(SETTINGS, crop="windows:6")


@pytest.mark.parametrize("name", INPUTS)
def test_a_neighbour_in_the_batch_changes_nothing_but_rounding(make, name):
    reconstruction = make(LABELS, second_view=INPUTS[name].needs_second_view)
    together = INPUTS[name].measure(reconstruction)
    alone = np.concatenate([INPUTS[name].measure(reconstruction[k : k + 1]) for k in range(len(LABELS))])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", FEATURES)
def test_every_number_has_a_name_of_its_own(name):
    names = [feature.name for feature in FEATURES[name].features]
    assert len(set(names)) == len(names)
    assert all("band" in name or name == "mean error" or name.startswith("LPIPS in layer") for name in names)


@pytest.mark.parametrize("name", [name for name, one in INPUTS.items() if one.control == name])
def test_a_control_sees_the_image_alone(make, name):
    reconstruction = make(LABELS)
    other = dataclasses.replace(reconstruction, x_0_hat=torch.zeros_like(reconstruction.x_0))
    np.testing.assert_array_equal(INPUTS[name].measure(reconstruction), INPUTS[name].measure(other))


@pytest.mark.parametrize("name", FEATURES)
def test_windows_are_pooled_to_mean_and_deviation_of_each_feature(make, name):
    of_one = FEATURES[name]
    windows = make(LABELS, settings=WINDOWS, second_view=of_one.needs_second_view)
    of_windows = feature_set(name, windows.settings)
    each = of_one.measure(windows)
    mean = each.sum(axis=0) / len(each)
    deviation = np.sqrt(((each - mean) ** 2).sum(axis=0) / len(each))
    np.testing.assert_allclose(of_windows.measure(windows), [np.concatenate([mean, deviation])], rtol=1e-9, atol=1e-12)
    alone = np.concatenate([each[0], np.zeros(each.shape[1])])
    np.testing.assert_allclose(of_windows.measure(windows[:1]), [alone], rtol=1e-5, atol=1e-5)


def test_a_pooled_feature_is_named_by_its_pooling_and_keeps_its_band():
    plain, pooled = (feature_set("bands", settings) for settings in (SETTINGS, WINDOWS))
    assert plain is FEATURES["bands"]
    assert pooled.names[3] == "error in band 3 (0.25-0.35 cycles/px), mean over windows"
    assert pooled.names[16 + 3] == "error in band 3 (0.25-0.35 cycles/px), deviation over windows"
    assert [feature.band for feature in pooled.features] == 2 * [feature.band for feature in plain.features]


def test_a_map_of_8_bits_is_the_center_crop_of_the_png_that_the_original_writes(make):
    """DIRE's compute_dire.py writes the PNG; its demo.py cuts out 224 of 256 px, and normalises as for ImageNet."""
    reconstruction = make(torch.tensor([0, 1]), settings=dataclasses.replace(SETTINGS, image_size=256))
    reconstruction.x_0_hat[0] = -reconstruction.x_0[0].sign()  # errors up to 2
    measured = INPUTS["map_8bit"].measure(reconstruction)
    for one, x_0, x_0_hat in zip(measured, reconstruction.x_0.numpy(), reconstruction.x_0_hat.numpy(), strict=True):
        levels = np.clip(np.abs(x_0 - x_0_hat) * np.float32(255) / np.float32(2), 0, 255).astype(np.uint8)
        png = io.BytesIO()
        Image.fromarray(levels.transpose(1, 2, 0)).save(png, "PNG")
        crop = Image.open(png).crop((16, 16, 240, 240))
        scaled = (np.asarray(crop, np.float64) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        np.testing.assert_allclose(one, scaled.transpose(2, 0, 1), atol=1e-5)


def test_maps_of_windows_are_refused():
    assert detector_input("map", SETTINGS) is INPUTS["map"]
    with pytest.raises(ConfigError, match=r"^crop=windows:6: map is one map per image; center, squash are allowed$"):
        detector_input("map", WINDOWS)


def test_bands_are_the_profile_of_errors_and_coherences(make):
    reconstruction = make(LABELS)
    profile = band_profile(reconstruction.x_0, reconstruction.x_0_hat)
    features = FEATURES["bands"].measure(reconstruction)
    np.testing.assert_array_equal(features[:, :NUM_BANDS], profile.energies)
    np.testing.assert_array_equal(features[:, NUM_BANDS:], profile.coherences)


def test_views_are_the_profiles_of_both_views_against_the_whole_image(make):
    reconstruction = make(LABELS, second_view=True)
    profiles = [band_profile(reconstruction.x_0, seen) for seen in (reconstruction.x_0_hat, reconstruction.second)]
    expected = np.concatenate([values for p in profiles for values in (p.energies, p.coherences)], axis=1)
    np.testing.assert_array_equal(FEATURES["views"].measure(reconstruction), expected)


def test_a_feature_is_named_by_its_band_and_the_frequencies_there():
    names = [feature.name for feature in FEATURES["bands_mean"].features]
    assert names[0] == "error in band 0 (0.00-0.05 cycles/px)"
    assert names[3] == "error in band 3 (0.25-0.35 cycles/px)"
    assert names[15] == "coherence in band 7 (0.66-0.71 cycles/px)"
    assert names[16] == "mean error"
    assert [feature.band for feature in FEATURES["bands_mean"].features] == [*range(8), *range(8), None]


def test_mean_error_is_the_logarithm_of_the_absolute_one(make):
    reconstruction = make(LABELS)
    mean = (reconstruction.x_0 - reconstruction.x_0_hat).abs().mean(dim=(1, 2, 3))
    measured = FEATURES["bands_mean"].measure(reconstruction)
    np.testing.assert_array_equal(measured[:, :16], FEATURES["bands"].measure(reconstruction))
    np.testing.assert_allclose(measured[:, 16], torch.log(mean + 1e-6), rtol=1e-5)
    exact = dataclasses.replace(reconstruction, x_0_hat=reconstruction.x_0)
    np.testing.assert_allclose(FEATURES["bands_mean"].measure(exact)[:, 16], np.log(1e-6), rtol=1e-5)


def test_features_of_lpips_are_the_logarithms_of_its_layers_and_need_a_model_with_lpips(make):
    reconstruction = make(LABELS)
    reconstruction.lpips[0, 0] = 0
    measured = FEATURES["lpips"].measure(reconstruction)
    np.testing.assert_allclose(measured, np.log(reconstruction.lpips.numpy() + 1e-6), rtol=1e-5)
    message = "^features=lpips: the model has no LPIPS; add lpips:FOLDER to the names of --model$"
    with pytest.raises(ConfigError, match=message):
        FEATURES["lpips"].measure(dataclasses.replace(reconstruction, lpips=None))


def test_features_of_luma_and_colour_are_the_profiles_of_jfif_planes(make):
    reconstruction = make(LABELS)
    red, green, blue = reconstruction.x_0.split(1, dim=1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    planes = (luma, (blue - luma) * 0.5 / (1 - 0.114), (red - luma) * 0.5 / (1 - 0.299))
    spectra = torch.cat([log_band_energies(plane) for plane in planes], dim=1)
    np.testing.assert_allclose(FEATURES["image_ycc"].measure(reconstruction), spectra, rtol=1e-3)
    half = dataclasses.replace(reconstruction, x_0_hat=reconstruction.x_0 / 2)
    profiles = [band_profile(plane, plane / 2) for plane in planes]
    expected = torch.cat([values for p in profiles for values in (p.energies, p.coherences)], dim=1)
    np.testing.assert_allclose(FEATURES["bands_ycc"].measure(half), expected, rtol=1e-3)


def test_image_spectrum_follows_the_bands_of_the_error(make):
    reconstruction = make(LABELS)
    parts = [FEATURES[name].measure(reconstruction) for name in ("bands", "image")]
    together = FEATURES["bands_image"].measure(reconstruction)
    np.testing.assert_allclose(together, np.concatenate(parts, axis=1), rtol=1e-5)
    np.testing.assert_array_equal(parts[1], log_band_energies(reconstruction.x_0))


def test_range_of_a_band_is_where_its_hat_is_at_least_a_half():
    bands = radial_bands((256, 256))
    rho = torch.hypot(torch.fft.fftfreq(256)[:, None], torch.fft.rfftfreq(256))
    for band in range(NUM_BANDS):
        low, high = band_range(band)
        inside = (rho > low + 1e-4) & (rho < high - 1e-4)
        assert (bands[band][inside] >= 0.5).all()
        assert (bands[band][(rho < low - 1e-4) | (rho > high + 1e-4)] <= 0.5).all()


def test_a_grey_error_reaches_luma_alone(make):
    original = make(torch.zeros(2))
    grey = original.error.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    off, exact = (
        FEATURES["bands_ycc"].measure(dataclasses.replace(original, x_0_hat=x_0_hat))
        for x_0_hat in (original.x_0 - grey, original.x_0)
    )
    is_luma = np.array(["luma" in feature.name for feature in FEATURES["bands_ycc"].features])
    np.testing.assert_allclose(off[:, ~is_luma], exact[:, ~is_luma], atol=1e-4)
    assert (np.abs(off - exact)[:, is_luma] > 1e-2).any()


def test_maps_are_normalised_as_the_original_detectors(make):
    reconstruction = make(LABELS)
    error = reconstruction.map.values / 2  # black is 0, white is 1
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = (error - mean[:, None, None]) / std[:, None, None]
    np.testing.assert_allclose(INPUTS["map"].measure(reconstruction), expected, rtol=1e-5)


def test_pixels_are_normalised_as_photographs(make):
    reconstruction = make(LABELS)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = ((reconstruction.x_0 + 1) / 2 - mean[:, None, None]) / std[:, None, None]
    np.testing.assert_allclose(INPUTS["pixels"].measure(reconstruction), expected, rtol=1e-4, atol=1e-6)


def test_an_error_larger_than_from_black_to_white_is_white(make):
    reconstruction = make(LABELS)
    white, beyond = (
        INPUTS["map"].measure(dataclasses.replace(reconstruction, x_0_hat=reconstruction.x_0 - error))
        for error in (torch.tensor(2.0), torch.tensor(2.5))
    )
    np.testing.assert_allclose(beyond, white, atol=1e-6)


def test_band_maps_begin_with_the_whole_error(make):
    reconstruction = make(LABELS)
    bands = INPUTS["map_bands"]
    assert isinstance(bands, MapInput)
    values = bands.measure(reconstruction)
    assert values.shape[1] == bands.num_channels == 12
    np.testing.assert_allclose(values[:, :3], INPUTS["map"].measure(reconstruction), rtol=1e-5)
    parts = band_maps(reconstruction.error)  # low, middle and high: three bands, three, two
    thirds = [parts[:, first:last].sum(dim=1) for first, last in ((0, 3), (3, 6), (6, 8))]
    for place, third in enumerate(thirds, start=1):
        alone = dataclasses.replace(reconstruction, x_0_hat=reconstruction.x_0 - third)
        found = values[:, 3 * place : 3 * place + 3]
        np.testing.assert_allclose(found, INPUTS["map"].measure(alone), rtol=1e-3, atol=1e-5)
