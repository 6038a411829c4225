"""Reconstruction of many files: order, full batches, failures, and stopping."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rediffuse.dire.job import load_file, reconstruct_files
from rediffuse.dire.reconstruct import reconstruct
from rediffuse.dire.settings import DireSettings
from rediffuse.errors import ConfigError
from rediffuse.images.changes import Change, ChangedImage
from rediffuse.images.find import FoundImage, MemoryImage, find_images
from rediffuse.images.limits import Limits
from rediffuse.images.tensors import to_tensor
from rediffuse.images.windows import textured_windows
from rediffuse.models.config import Precision
from rediffuse.zoo.model import DiffusionModel


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_one_result_per_file_in_order_whatever_the_batch(
    model: DiffusionModel, pictures: Path, batch_size: int
) -> None:
    files, settings = find_images([pictures]), DireSettings.for_model(model, steps=2)
    results = list(reconstruct_files(model, files, settings, batch_size=batch_size))
    assert [result.found for result in results] == files
    for result in results:
        loaded = load_file(result.found, settings)
        if loaded.x_0 is None:
            assert result.found.name == "notes.png"
            assert result.reason == loaded.reason
        else:
            assert result.reconstruction is not None
            alone = reconstruct(model, loaded.x_0, settings)
            assert torch.allclose(result.reconstruction.x_0_hat, alone.x_0_hat, rtol=0, atol=1e-4)
            assert result.original is loaded.original is None  # unless they are asked for


def test_images_in_memory_and_changed_copies_have_no_facts_of_a_file(model: DiffusionModel) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 16, 3), dtype=np.uint8)
    copy = ChangedImage(MemoryImage(pixels, "image 1"), Change("crop", 0.75))
    files = [MemoryImage(pixels, "image 0"), copy, MemoryImage(pixels[:4], "image 2")]
    settings = DireSettings.for_model(model, steps=2)
    whole, changed, small = reconstruct_files(model, files, settings, batch_size=2, with_originals=True)
    assert whole.reconstruction is not None
    assert torch.equal(whole.reconstruction.x_0[0], to_tensor(pixels[4:20]))
    assert whole.original is not None
    assert changed.reconstruction is not None
    assert changed.original is None
    assert (small.found, small.reason) == (files[2], "image 2: 16x4 pixels, at least 8 on each side are needed")
    assert [result.meta for result in (whole, changed, small)] == [None] * 3


def test_the_limits_of_a_file_are_those_of_its_copies(model: DiffusionModel, pictures: Path) -> None:
    copies = [
        ChangedImage(FoundImage(pictures / "photo.png", "photo.png", limits=Limits(max_pixels=most)), change)
        for most, change in ((479, Change("crop", 0.9)), (480, Change("screenshot", 2.0)), (1920, Change("crop", 0.9)))
    ]
    results = list(reconstruct_files(model, copies, DireSettings.for_model(model, steps=2), batch_size=1))
    original, screenshot, crop = (result.reason for result in results)
    assert original is not None
    assert original.startswith(f"{pictures}/photo.png: 24x20 pixels, at most 479 in total are decoded")
    assert screenshot is not None
    assert screenshot.startswith(f"{copies[1].source}: ")
    assert "at most 480 in total" in screenshot
    assert crop is None


def test_meta_tells_codec_size_and_content(model: DiffusionModel, pictures: Path) -> None:
    settings = DireSettings.for_model(model, steps=2)
    loaded = load_file(FoundImage(pictures / "wide.bmp", "wide.bmp"), settings)
    assert loaded.meta is not None
    assert (loaded.meta.codec, loaded.meta.size, len(loaded.meta.sha256)) == ("BMP", (40, 20), 64)


def test_batches_fill_up_across_unreadable_files(model: DiffusionModel, tmp_path: Path) -> None:
    for index in range(5):
        Image.fromarray(np.full((16, 16, 3), 40 * index, np.uint8)).save(tmp_path / f"{2 * index}.png")
        (tmp_path / f"{2 * index + 1}.png").write_text("no image")
    sizes = []
    counting = model.network.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    try:
        results = list(
            reconstruct_files(model, find_images([tmp_path]), DireSettings.for_model(model, steps=2), batch_size=2)
        )
    finally:
        counting.remove()
    assert sizes == [2] * 12  # inversion and sampling, two steps each; the last batch is padded
    assert [result.reason is None for result in results] == [True, False] * 5


def test_batches_fill_up_across_the_windows_of_several_images(model: DiffusionModel, photographs: Path) -> None:
    settings = DireSettings.for_model(model, steps=2, crop="windows:3")
    sizes = []
    counting = model.network.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    try:
        results = list(reconstruct_files(model, find_images([photographs]), settings, batch_size=4))
    finally:
        counting.remove()
    rows = [0 if result.reconstruction is None else len(result.reconstruction) for result in results]
    assert rows == [3, 3, 0, 3, 1]  # c.png is smaller than a window, e.png has room for one
    assert sizes == [4] * 12  # inversion and sampling, two steps each; the last batch is padded
    assert results[2].reason == f"{photographs / 'c.png'}: 40x15 pixels, smaller than a window of 16x16"
    assert results[2].meta is not None


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_windows_are_reconstructed_in_order_whatever_the_batch(
    model: DiffusionModel, photographs: Path, batch_size: int
) -> None:
    settings = DireSettings.for_model(model, steps=2, crop="windows:3", second_view=True)
    found = find_images([photographs])
    for result in reconstruct_files(model, found, settings, batch_size=batch_size, with_originals=True):
        if (reconstruction := result.reconstruction) is None:
            continue
        with Image.open(result.found.path) as image:
            pixels = np.asarray(image)
        assert list(reconstruction.windows) == textured_windows(pixels, 16, 3)
        assert torch.equal(reconstruction.x_0, to_tensor(np.stack([one.cut(pixels) for one in reconstruction.windows])))
        alone = reconstruct(model, reconstruction.x_0, settings)
        for name in ("x_T", "x_0_hat", "second"):
            assert torch.allclose(getattr(reconstruction, name), getattr(alone, name), rtol=0, atol=1e-4)
        assert result.original is not None
        assert np.array_equal(result.original.pixels, pixels)
        assert result.original.num_bytes == result.found.path.stat().st_size


def require_classes(
    model: DiffusionModel, files: Sequence[FoundImage], settings: DireSettings, batch_size: int
) -> None:
    """The first call of the network with an image, before any noise is added, must have the class of its file."""
    calls = []
    counting = model.network.register_forward_pre_hook(
        lambda _, args, kwargs: calls.extend(zip(args[0].clone(), kwargs["y"], strict=True)), with_kwargs=True
    )
    try:
        results = list(reconstruct_files(model, files, settings, batch_size=batch_size))
    finally:
        counting.remove()
    for result in results:
        if result.reconstruction is not None:
            for row in result.reconstruction.x_0:
                classes = [y.item() for x, y in calls if torch.equal(x, row)]
                assert classes[0] == result.found.label


@pytest.mark.parametrize("batch_size", [2, 4])
def test_every_window_is_told_the_class_of_its_file(
    class_model: DiffusionModel, photographs: Path, batch_size: int
) -> None:
    settings = DireSettings.for_model(class_model, steps=2, crop="windows:3")
    files = [replace(found, label=index % 3) for index, found in enumerate(find_images([photographs]))]
    require_classes(class_model, files, settings, batch_size)


@pytest.mark.parametrize(
    ("precision", "cause"),
    [("fp32", "the model diverges on this image"), ("bf16", "precision=bf16 may not suffice; fp32 has more")],
)
def test_reconstruction_that_overflows_is_a_failed_file(
    class_model: DiffusionModel, pictures: Path, precision: Precision, cause: str
) -> None:
    settings = DireSettings.for_model(class_model, steps=2, precision=precision)
    loaded = load_file(FoundImage(pictures / "photo.png", "photo.png", label=2), settings)
    bias = class_model.network.out[2].bias
    with torch.no_grad():
        before = bias.clone()
        bias.fill_(torch.nan)
    try:
        [result] = reconstruct_files(class_model, [loaded.found], settings, batch_size=1)
    finally:
        with torch.no_grad():
            bias.copy_(before)
    assert result.reconstruction is None
    assert (result.found, result.meta) == (loaded.found, loaded.meta)
    assert result.reason == f"{pictures / 'photo.png'}: the reconstruction is not finite: {cause}"


def test_classes_reach_their_files(class_model: DiffusionModel, pictures: Path) -> None:
    files = [replace(found, label=index % 3) for index, found in enumerate(find_images([pictures]))]
    require_classes(class_model, files, DireSettings.for_model(class_model, steps=2), 4)


def test_the_labels_of_a_list_do_not_reach_a_model_without_classes(model: DiffusionModel, pictures: Path) -> None:
    given, settings = FoundImage(pictures / "photo.png", "photo.png"), DireSettings.for_model(model, steps=2)
    files = [given, replace(given, label=1)]
    one, other = (result.reconstruction for result in reconstruct_files(model, files, settings, batch_size=2))
    assert one is not None
    assert other is not None
    assert torch.equal(one.x_0_hat, other.x_0_hat)


@pytest.mark.parametrize("name", ["batch_size", "workers"])
def test_numbers_below_1_are_refused_by_name(model: DiffusionModel, name: str) -> None:
    least = {"batch_size": 1, "workers": 1}
    assert list(reconstruct_files(model, [], DireSettings.for_model(model), **least)) == []
    with pytest.raises(ConfigError, match=f"^{name}=0: at least 1 is needed$"):
        next(reconstruct_files(model, [], DireSettings.for_model(model), **least | {name: 0}))


@pytest.mark.parametrize(
    ("crop", "num_files", "steps", "is_measured"),
    [("center", 7, 40, False), ("center", 7, 50, True), ("windows:2", 4, 100, False), ("windows:2", 4, 125, True)],
)
def test_a_batch_size_is_measured_if_the_calls_of_all_files_take_50_times_as_long_and_is_recorded(
    model: DiffusionModel,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    crop: str,
    num_files: int,
    steps: int,
    is_measured: bool,
) -> None:
    caplog.set_level("DEBUG", "rediffuse.zoo.batch_size")
    settings = DireSettings.for_model(model, steps=steps, crop=crop)
    reconstruct_files(model, [], settings, batch_size="auto", num_files=num_files, folder=tmp_path)
    assert bool(caplog.records) == is_measured
    assert (tmp_path / "batch_size.json").exists()


def test_a_batch_that_does_not_fit_in_memory_is_halved_and_the_work_goes_on(
    model: DiffusionModel, pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sizes: list[int] = []

    def allow_one(_: object, inputs: tuple[torch.Tensor, ...]) -> None:
        sizes.append(len(inputs[0]))
        if len(inputs[0]) > 1:
            raise torch.OutOfMemoryError("out of memory")

    settings = DireSettings.for_model(model, steps=2)
    files = find_images([pictures])
    expected = list(reconstruct_files(model, files, settings, batch_size=6))
    limited = model.network.register_forward_pre_hook(allow_one)
    try:
        given = list(reconstruct_files(model, files, settings, batch_size=6))
    finally:
        limited.remove()
    assert [size for size in sizes if size > 1] == [6, 3]
    assert [record.message for record in caplog.records] == [
        "6 images do not fit in the memory of cpu: continues with 3",
        "3 images do not fit in the memory of cpu: continues with 1",
    ]
    for one, other in zip(given, expected, strict=True):
        assert (one.reconstruction is None) == (other.reconstruction is None)
        if one.reconstruction is not None and other.reconstruction is not None:
            torch.testing.assert_close(
                one.reconstruction.x_0_hat, other.reconstruction.x_0_hat, atol=1e-4, rtol=0, msg=one.found.name
            )


def test_an_image_that_does_not_fit_in_memory_is_an_error(model: DiffusionModel, pictures: Path) -> None:
    def exhaust(*_: object) -> None:
        raise torch.OutOfMemoryError("out of memory")

    settings = DireSettings.for_model(model, steps=2)
    full = model.network.register_forward_pre_hook(exhaust)
    try:
        with pytest.raises(ConfigError, match=r"^batch_size=1: one image does not fit in the memory of cpu$"):
            list(reconstruct_files(model, find_images([pictures]), settings, batch_size=3))
    finally:
        full.remove()


def test_settings_of_another_model_stop_the_job(model: DiffusionModel, pictures: Path) -> None:
    settings = replace(DireSettings.for_model(model), model_sha256="f" * 64)
    with pytest.raises(Exception, match="model_sha256"):
        list(reconstruct_files(model, find_images([pictures]), settings, batch_size=2))
