"""A history applies its fields, and draws cover the whole distribution."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from rediffuse.errors import ConfigError
from rediffuse.images import degrade
from rediffuse.images.history import Histories, History


@pytest.fixture
def photo() -> np.ndarray:
    """A smooth picture, 80 by 112, with some noise."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(40, 216, (5, 7, 3), np.uint8)).resize((112, 80), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(coarse) + rng.normal(0, 4, (80, 112, 3)), 0, 255).astype(np.uint8)


def test_without_reduction_and_encoding_nothing_changes(photo: np.ndarray) -> None:
    assert np.array_equal(History().apply(photo), photo)


def test_reduction_comes_before_the_encoding(photo: np.ndarray) -> None:
    history = History(short_side=40, filter="lanczos", encoding="JPEG", quality=80, subsampling="4:4:4")
    expected = degrade.jpeg(degrade.reduce(photo, 40, "lanczos"), 80, subsampling="4:4:4")
    assert expected.shape == (40, 56, 3)
    assert np.array_equal(history.apply(photo), expected)


def test_smaller_images_are_not_enlarged(photo: np.ndarray) -> None:
    assert np.array_equal(History(short_side=400).apply(photo), photo)


def test_webp_is_that_of_the_quality(photo: np.ndarray) -> None:
    assert np.array_equal(History(encoding="WEBP", quality=75).apply(photo), degrade.webp(photo, 75))


def test_blur_comes_after_the_reduction(photo: np.ndarray) -> None:
    reduced = degrade.reduce(photo, 32)
    assert np.array_equal(History(short_side=32, blur=1.5).apply(photo), degrade.blur(reduced, 1.5))


def test_blurs_are_drawn_between_their_limits_and_change_no_other_draw() -> None:
    blurred, plain = (
        [Histories(blurs=blurs).draw(np.random.default_rng(seed)) for seed in range(200)]
        for blurs in ((0.5, 2.0), (0.0, 0.0))
    )
    sigmas = [history.blur for history in blurred]
    assert (min(sigmas), max(sigmas)) == (pytest.approx(0.5, abs=0.05), pytest.approx(2, abs=0.05))
    assert [replace(history, blur=0.0) for history in blurred] == plain


def test_pixels_that_are_given_stay_as_they_are(photo: np.ndarray) -> None:
    before = photo.copy()
    History(short_side=32, encoding="JPEG").apply(photo)
    assert np.array_equal(photo, before)


def test_every_value_is_drawn_about_as_often_as_the_others() -> None:
    histories, rng = Histories(), np.random.default_rng(0)
    drawn = [histories.draw(rng) for _ in range(2000)]
    sides = Counter(history.short_side for history in drawn)
    assert set(sides) == {None, 400, 320, 256}
    assert min(sides.values()) > 420
    encodings = Counter(history.encoding for history in drawn)
    assert encodings["JPEG"] == pytest.approx(1000, abs=100)
    assert set(encodings) == {"JPEG", "WEBP", "none"}
    assert {history.quality for history in drawn} == set(range(75, 96))
    assert {history.subsampling for history in drawn} == {"4:2:0", "4:4:4"}
    assert {history.filter for history in drawn} == {"bilinear", "bicubic", "lanczos"}


def test_draws_depend_on_their_generator_alone() -> None:
    first, second = ([Histories().draw(rng) for _ in range(20)] for rng in map(np.random.default_rng, (3, 3)))
    assert first == second


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"encodings": ()}, r"encodings=\(\): at least one value is needed"),
        ({"qualities": (95, 75)}, r"qualities=\(95, 75\): from 1 to 100 are allowed, the lower value first"),
        ({"blurs": (2, 1)}, r"blurs=\(2, 1\): from 0 to 100 pixels are allowed, the lower value first"),
        ({"qualities": (0, 75)}, r"qualities=\(0, 75\): from 1 to 100 are allowed, the lower value first"),
    ],
)
def test_impossible_distributions_are_named(fields: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=f"^{said}$"):
        Histories(**fields)
