from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rediffuse.errors import ConfigError, InputError
from rediffuse.files import write_bytes
from rediffuse.images.crop import center_crop
from rediffuse.images.encode import png_bytes
from rediffuse.images.find import find_images
from rediffuse.images.npz import write_npz
from rediffuse.sampling.small import SmallImage, from_files, from_npz, small_size
from rediffuse.zoo.published import PUBLISHED
from sampling.tiny import upsampler

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def batch(tmp_path: Path) -> Path:
    write_npz(tmp_path / "batch.npz", PIXELS, PIXELS.shape, labels=[2, 0])
    return tmp_path / "batch.npz"


def test_the_size_comes_from_the_model_or_from_the_user() -> None:
    model = upsampler()
    assert small_size(model, None) == small_size(model, 8) == 8
    with pytest.raises(ConfigError, match="--small-size 4: tiny was trained to enlarge 8 px"):
        small_size(model, 4)
    silent = replace(model, training={})
    assert small_size(silent, 4) == 4
    with pytest.raises(ConfigError, match="tiny: does not record the size of its small images; give --small-size"):
        small_size(silent, None)
    with pytest.raises(ConfigError, match="--small-size 32: from 1 to 16"):
        small_size(silent, 32)


def test_the_published_upsamplers_say_what_they_enlarge() -> None:
    sizes = {name: model.training.get("small_size") for name, model in PUBLISHED.items() if model.kind == "superres"}
    assert sizes == {"64_256_upsampler": 64, "128_512_upsampler": 128}


def test_a_batch_brings_its_classes_unless_one_is_given(batch: Path) -> None:
    assert [small.label for small in from_npz(batch, 8, None, 3)] == [2, 0]
    assert [small.name for small in from_npz(batch, 8, None, 3)] == ["002_000000", "000_000001"]
    assert [small.label for small in from_npz(batch, 8, 1, 3)] == [1, 1]
    assert [small.label for small in from_npz(batch, 8, None, None)] == [None, None]


def test_a_batch_that_does_not_fit_is_refused(batch: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="its images are 8x8 px; this model enlarges 4x4"):
        from_npz(batch, 4, None, None)
    with pytest.raises(InputError, match=r"its classes \(arr_1\) span 0 to 2; 0 to 1 are allowed"):
        from_npz(batch, 8, None, 2)
    write_npz(tmp_path / "plain.npz", PIXELS, PIXELS.shape)
    with pytest.raises(InputError, match=r"has no classes \(arr_1\), which this model needs"):
        from_npz(tmp_path / "plain.npz", 8, None, 3)


def test_files_are_cropped_and_unreadable_ones_reported(tmp_path: Path) -> None:
    wide = np.random.default_rng(0).integers(0, 256, (20, 40, 3), dtype=np.uint8)
    write_bytes(tmp_path / "wide.png", png_bytes(wide))
    write_bytes(tmp_path / "broken.png", b"no image")
    images, [reason] = from_files(find_images([tmp_path]), 8, "center", None)
    assert "broken.png" in reason
    assert [small.name for small in images] == ["wide.png"]
    np.testing.assert_array_equal(images[0].pixels, center_crop(wide, 8))


def test_the_seed_of_an_image_is_its_own() -> None:
    first, second = (SmallImage(name="a", pixels=pixels) for pixels in PIXELS)
    assert first.seed(0) == SmallImage(name="b", pixels=PIXELS[0]).seed(0)
    assert len({first.seed(0), first.seed(1), second.seed(0)}) == 3
