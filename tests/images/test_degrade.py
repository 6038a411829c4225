"""Each degradation keeps shape and type, and a stronger one changes the image more."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from rediffuse.errors import ConfigError
from rediffuse.images import degrade


@pytest.fixture
def photo() -> np.ndarray:
    """A smooth picture, 40 by 56, with some noise."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(40, 216, (5, 7, 3), np.uint8)).resize((56, 40), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(coarse) + rng.normal(0, 4, (40, 56, 3)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("mild", "strong"),
    [
        (lambda p: degrade.jpeg(p, 95), lambda p: degrade.jpeg(p, 10)),
        (lambda p: degrade.jpeg(p, 95, subsampling="4:4:4"), lambda p: degrade.jpeg(p, 95)),
        (lambda p: degrade.webp(p, 95), lambda p: degrade.webp(p, 5)),
        (lambda p: degrade.resize(p, 0.9), lambda p: degrade.resize(p, 0.2)),
        (lambda p: degrade.blur(p, 0.5), lambda p: degrade.blur(p, 4)),
        (
            lambda p: degrade.gaussian_noise(p, 1, np.random.default_rng(0)),
            lambda p: degrade.gaussian_noise(p, 20, np.random.default_rng(0)),
        ),
    ],
    ids=["jpeg", "subsampling", "webp", "resize", "blur", "noise"],
)
def test_more_of_it_takes_away_more(photo: np.ndarray, mild: Callable, strong: Callable) -> None:
    before = photo.copy()
    weaker, stronger = mild(photo), strong(photo)
    assert weaker.shape == stronger.shape == photo.shape
    assert weaker.dtype == stronger.dtype == np.uint8
    loss = [np.abs(image.astype(int) - photo).mean() for image in (weaker, stronger)]
    assert 0 < loss[0] < loss[1]
    assert np.array_equal(photo, before)


def test_nothing_of_it_changes_nothing(photo: np.ndarray) -> None:
    for same in (degrade.resize(photo, 1), degrade.blur(photo, 0), degrade.crop_border(photo, 0)):
        assert np.array_equal(same, photo)
    assert np.array_equal(degrade.gaussian_noise(photo, 0, np.random.default_rng(0)), photo)


def test_noise_has_the_stated_deviation_and_depends_on_its_generator_alone() -> None:
    gray = np.full((100, 100, 3), 128, np.uint8)
    first, second = (degrade.gaussian_noise(gray, 10, np.random.default_rng(1)) for _ in range(2))
    assert np.array_equal(first, second)
    assert first.std() == pytest.approx(10, rel=0.02)


def test_border_is_cut_at_each_end(photo: np.ndarray) -> None:
    assert np.array_equal(degrade.crop_border(photo, 0.25), photo[10:30, 14:42])


@pytest.mark.parametrize("filter", ["bilinear", "bicubic", "lanczos"])
def test_reduction_gives_the_short_side_and_keeps_the_proportions(photo: np.ndarray, filter: degrade.Filter) -> None:
    reduced = degrade.reduce(photo, 20, filter)
    assert reduced.shape == (20, 28, 3)
    assert degrade.reduce(photo.swapaxes(0, 1), 20, filter).shape == (28, 20, 3)
    assert reduced.mean() == pytest.approx(photo.mean(), abs=1)


def test_reduction_never_enlarges(photo: np.ndarray) -> None:
    assert np.array_equal(degrade.reduce(photo, 40), photo)
    assert np.array_equal(degrade.reduce(photo, 41), photo)


def test_scaling_changes_both_sides_and_keeps_the_picture(photo: np.ndarray) -> None:
    assert degrade.scale(photo, 0.75).shape == (30, 42, 3)
    assert degrade.scale(photo, 0.75).mean() == pytest.approx(photo.mean(), abs=1)
    assert np.array_equal(degrade.scale(photo, 1), photo)
    assert degrade.scale(photo[:2], 0.01).shape == (1, 1, 3)


def test_a_screenshot_shows_the_image_alone_at_the_size_of_the_screen(photo: np.ndarray) -> None:
    shown = degrade.screenshot(photo, 1.5)
    assert shown.shape == (45, 63, 3)
    assert shown.dtype == np.uint8
    resampled = degrade.scale(degrade.scale(photo, 0.75), 1.5)
    assert 0 < np.abs(shown.astype(int) - resampled).mean() < 6  # the JPEG alone


def test_the_blocks_of_a_screenshot_do_not_begin_at_its_corner() -> None:
    noise = 128 + 20 * np.random.default_rng(0).standard_normal((320, 320, 3))
    photo = noise.clip(0, 255).astype(np.uint8)
    again = degrade.jpeg(degrade.scale(degrade.scale(photo, 0.75), 1.25), degrade.SCREENSHOT_QUALITY)
    shown = degrade.screenshot(photo, 1.25)
    assert shown.shape == again.shape
    assert not np.array_equal(shown, again)
    steps = [np.abs(np.diff(image.astype(int), axis=1)).sum((0, 2)) for image in (shown, again)]
    at = [np.array([step[phase::8].mean() for phase in range(8)]) for step in steps]
    assert at[1].argmax() == 7  # between column 7 and column 8
    assert at[0].argmax() == (7 - degrade.PAGE_BORDER) % 8


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda p: degrade.jpeg(p, 0), "quality=0: from 1 to 100 are allowed"),
        (lambda p: degrade.webp(p, 101), "quality=101: from 0 to 100 are allowed"),
        (lambda p: degrade.resize(p, 0), "scale=0: from 0.01 to 4 are allowed"),
        (lambda p: degrade.reduce(p, 0), "short_side=0: from 1 to inf are allowed"),
        (lambda p: degrade.blur(p, float("nan")), "sigma=nan: from 0 to 100 are allowed"),
        (lambda p: degrade.scale(p, 5), "factor=5: from 0.01 to 4 are allowed"),
        (lambda p: degrade.screenshot(p, 0.9), "display_scale=0.9: from 1 to 3 are allowed"),
        (lambda p: degrade.crop_border(p, 0.5), "fraction=0.5: from 0 to 0.45 are allowed"),
    ],
)
def test_settings_outside_their_range_are_named(photo: np.ndarray, call: Callable, said: str) -> None:
    with pytest.raises(ConfigError, match=f"^{said}$"):
        call(photo)
