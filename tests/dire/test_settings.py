"""The settings of a reconstruction: allowed values, and what is computed from them."""

from dataclasses import replace

import pytest

from rediffuse.dire.settings import DireSettings, require_same
from rediffuse.errors import ConfigError, SettingsMismatch

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
        ({"frequency": "freeze"}, "freeze"),
    ],
)
def test_values_beyond_them_are_refused_by_name(given: dict[str, int | str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(SETTINGS, **given)


def test_the_grid_is_that_of_ddim() -> None:
    assert SETTINGS.respacing == "ddim20"


def test_every_setting_that_differs_is_named_with_both_values() -> None:
    require_same(given=replace(SETTINGS), expected=SETTINGS, owner="the detector")
    with pytest.raises(SettingsMismatch, match=r"^the detector has other settings: depth=3 \(there None\), clip=F"):
        require_same(given=replace(SETTINGS, depth=3, clip=False), expected=SETTINGS, owner="the detector")
