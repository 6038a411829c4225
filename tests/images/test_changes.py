"""Changes by name and strength, and changed copies of images."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from rediffuse.dire.job import load_file
from rediffuse.dire.settings import DireSettings
from rediffuse.errors import ConfigError, ImageError
from rediffuse.images import degrade
from rediffuse.images.changes import LONGEST_SIDES, Change, ChangedImage
from rediffuse.images.config import ChangeName
from rediffuse.images.find import FoundImage, MemoryImage
from rediffuse.images.windows import textured_windows

PHOTO = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
CASES = {
    Change("jpeg", 75): ("JPEG compression of quality 75", lambda p: degrade.jpeg(p, 75)),
    Change("webp", 80): ("WebP compression of quality 80", lambda p: degrade.webp(p, 80)),
    Change("reduce", 0.75): ("a reduction to 75% of the size", lambda p: degrade.scale(p, 0.75)),
    Change("crop", 0.9): ("a crop to 90% of each side", lambda p: p[2:38, 3:57]),
    Change("blur", 0.5): ("a blur with a sigma of 0.5 pixels", lambda p: degrade.blur(p, 0.5)),
    Change("noise", 2): (
        "noise with a sigma of 2 levels",
        lambda p: degrade.gaussian_noise(p, 2, np.random.default_rng(0)),
    ),
    Change("screenshot", 1.25): (
        "a screenshot at a display scale of 125%",
        lambda p: degrade.screenshot(p, 1.25),
    ),
}


@pytest.mark.parametrize("change", CASES, ids=lambda change: change.key)
def test_a_change_does_what_its_words_say(change: Change) -> None:
    words, function = CASES[change]
    assert str(change) == words
    np.testing.assert_array_equal(change.apply(PHOTO), function(PHOTO))


def test_every_name_has_a_case() -> None:
    assert [change.name for change in CASES] == list(get_args(ChangeName))
    assert [change.key for change in CASES][:3] == ["jpeg_75", "webp_80", "reduce_0.75"]


def test_noise_depends_on_its_seed_alone() -> None:
    noise = Change("noise", 4)
    assert np.array_equal(noise.apply(PHOTO, seed=1), noise.apply(PHOTO, seed=1))
    assert not np.array_equal(noise.apply(PHOTO, seed=1), noise.apply(PHOTO, seed=2))


def test_a_strength_outside_its_range_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^quality=0: from 1 to 100 are allowed$"):
        Change("jpeg", 0).apply(PHOTO)


def test_a_copy_of_a_file_and_of_pixels_are_the_same_with_windows_of_their_own(tmp_path: Path) -> None:
    Image.fromarray(PHOTO).save(tmp_path / "a.png")
    settings = DireSettings(image_size=16, model_sha256="0", crop="windows:2")
    originals = FoundImage(tmp_path / "a.png", "a.png"), MemoryImage(PHOTO, "image 0")
    copies = [load_file(ChangedImage(original, Change("reduce", 0.75)), settings) for original in originals]
    assert [copy.found.name for copy in copies] == ["a.png", "image 0"]
    expected = textured_windows(degrade.scale(PHOTO, 0.75), 16, 2)
    for copy in copies:
        assert (copy.reason, copy.meta, copy.windows) == (None, None, tuple(expected))
        np.testing.assert_array_equal(copy.x_0, copies[0].x_0)


@pytest.mark.parametrize(
    ("pixels", "change", "reason"),
    [
        (
            PHOTO[:20, :20],
            Change("crop", 0.5),
            "a after a crop to 50% of each side: 10x10 pixels, smaller than a window",
        ),
        (PHOTO[:9], Change("reduce", 0.5), "a after a reduction to 50% of the size: 30x4 pixels, at least 8"),
        (PHOTO[:4], Change("reduce", 0.5), "a: 60x4 pixels, at least 8 on each side are needed"),
    ],
)
def test_a_copy_that_is_too_small_has_a_reason(pixels: np.ndarray, change: Change, reason: str) -> None:
    settings = DireSettings(image_size=16, model_sha256="0", crop="windows:2")
    loaded = load_file(ChangedImage(MemoryImage(pixels, "a"), change), settings)
    assert loaded.x_0 is None
    assert str(loaded.reason).startswith(reason)


def test_an_image_that_an_encoder_cannot_take_has_a_reason() -> None:
    wide = np.zeros((8, LONGEST_SIDES["webp"] + 1, 3), np.uint8)
    copy = ChangedImage(MemoryImage(wide, "a"), Change("webp", 80))
    with pytest.raises(ImageError, match=r"^a after WebP compression of quality 80: 16384x8 pixels, at most 16383"):
        copy.pixels(wide)
    assert Change("webp", 80).apply(wide[:, :-1]).shape == (8, LONGEST_SIDES["webp"], 3)
