"""The settings of a reconstruction: allowed values, and what is computed from them."""

from dataclasses import replace

import pytest

from rediffuse.dire.settings import DireSettings, require_same
from rediffuse.errors import ConfigError, SettingsMismatch
from rediffuse.records import digest

SETTINGS = DireSettings(image_size=1, model_sha256="0" * 64)


@pytest.mark.parametrize("allowed", [{"steps": 1}, {"depth": 1}, {"depth": 20}, {"image_size": 1}])
def test_the_smallest_and_the_largest_values_are_allowed(allowed: dict[str, int]) -> None:
    assert replace(SETTINGS, **allowed)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": 0}, "^steps=0: at least 1 is needed$"),
        ({"depth": 0}, "^depth=0: from 1 to steps=20 are allowed$"),
        ({"depth": 21}, "^depth=21: from 1 to steps=20 are allowed$"),
        ({"image_size": 0}, "^image_size=0: at least 1 is needed$"),
        ({"image_size": 16385}, "^image_size=16385: at most 16384 is allowed$"),
        ({"steps": 100_001}, "^steps=100001: at most 100000 is allowed$"),
        ({"solver": "ddpm"}, "^solver=ddpm: ddim, dpm_solver, heun are allowed"),
        ({"solver": "heun"}, "^grid=compat: is only for solver=ddim; solver=heun needs grid=aligned$"),
        ({"frequency": "freeze"}, "freeze"),
        ({"crop": "centre"}, r"^crop=centre: center, squash, windows:N are allowed; did you mean center\?$"),
        ({"crop": "windows"}, "^crop=windows: N of windows:N is a whole number, at least 1$"),
        ({"crop": "windows:0"}, "^crop=windows:0: N of"),
        ({"crop": "windows:x"}, "^crop=windows:x: N of"),
        ({"crop": "windows:08"}, "^crop=windows:08: N of"),
        ({"crop": "windows:1.5"}, r"^crop=windows:1\.5: N of"),
    ],
)
def test_values_beyond_them_are_refused_by_name(given: dict[str, int | str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(SETTINGS, **given)


def test_other_samplers_take_the_aligned_grid_and_an_autoencoder_any() -> None:
    assert replace(SETTINGS, solver="heun", grid="aligned").solver == "heun"
    assert replace(SETTINGS, solver="autoencoder").grid == "compat"


def test_the_grid_is_that_of_ddim() -> None:
    assert SETTINGS.respacing == "ddim20"


def test_only_a_crop_into_windows_has_a_number_of_windows() -> None:
    numbers = {"center": None, "squash": None, "windows:1": 1, "windows:16": 16}
    assert {crop: replace(SETTINGS, crop=crop).num_windows for crop in numbers} == numbers


def test_settings_of_whole_images_keep_the_digest_they_had_before_there_were_windows() -> None:
    center = DireSettings(image_size=32, model_sha256="0" * 64, depth=5)
    squash = DireSettings(image_size=64, model_sha256="f" * 64, crop="squash", grid="aligned")
    assert [digest(center), digest(squash)] == ["38b196562ba4f8f1", "ebf3f759ef1e320d"]


def test_the_commit_of_equal_weights_does_not_count() -> None:
    here = replace(SETTINGS, model_revision="a" * 40, model_parts={"unet": "1"})
    require_same(given=here, expected=SETTINGS, owner="the detector")
    assert digest(here) == digest(SETTINGS)


def test_another_model_is_named_by_its_commit_and_the_parts_that_differ() -> None:
    here = replace(SETTINGS, model_revision="a" * 40, model_parts={"unet": "1", "vae": "2", "scheduler": "3"})
    parts = {"unet": "4", "vae": "2", "text_encoder": "5"}
    there = replace(SETTINGS, model_sha256="1" * 64, model_revision="b" * 40, model_parts=parts)
    commits = rf"model_revision={'a' * 40} \(there {'b' * 40}\)"
    with pytest.raises(SettingsMismatch, match=rf"{commits}, parts .* that differ: scheduler, text_encoder, unet$"):
        require_same(given=here, expected=there, owner="the detector")
    with pytest.raises(SettingsMismatch, match=rf"model_revision={'a' * 40} \(there None\)$"):  # an older detector
        require_same(given=here, expected=replace(SETTINGS, model_sha256="1" * 64), owner="the detector")


def test_every_setting_that_differs_is_named_with_both_values() -> None:
    require_same(given=replace(SETTINGS), expected=SETTINGS, owner="the detector")
    with pytest.raises(SettingsMismatch, match=r"^the detector has other settings: depth=3 \(there None\), clip=F"):
        require_same(given=replace(SETTINGS, depth=3, clip=False), expected=SETTINGS, owner="the detector")
