"""Many files through the model: order, full batches, failures, and stopping."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rediffuse.dire.job import check_labels, in_threads, load_file, reconstruct_batch, reconstruct_files
from rediffuse.dire.reconstruct import reconstruct
from rediffuse.dire.settings import DireSettings
from rediffuse.errors import ConfigError
from rediffuse.images.find import FoundImage, find_images
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
            alone = reconstruct(model, loaded.x_0[None], settings)
            assert torch.allclose(result.reconstruction.x_0_hat, alone.x_0_hat, rtol=0, atol=1e-4)


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
    assert sizes == [2] * 8 + [1] * 4  # inversion and sampling, two steps each
    assert [result.reason is None for result in results] == [True, False] * 5


def test_reconstruction_that_overflows_is_a_failed_file(model: DiffusionModel, pictures: Path) -> None:
    settings = DireSettings.for_model(model, steps=2)
    loaded = load_file(FoundImage(pictures / "photo.png", "photo.png"), settings)
    bias = model.network.out[2].bias
    with torch.no_grad():
        before = bias.clone()
        bias.fill_(torch.nan)
    try:
        [result] = reconstruct_batch(model, [loaded], settings)
    finally:
        with torch.no_grad():
            bias.copy_(before)
    assert result.reconstruction is None
    assert "photo.png: the reconstruction is not finite: precision=fp32" in (result.reason or "")


def test_classes_reach_their_files(class_model: DiffusionModel, pictures: Path) -> None:
    files, settings = find_images([pictures]), DireSettings.for_model(class_model, steps=2)
    labels = {found.name: index % 3 for index, found in enumerate(files)}
    for result in reconstruct_files(class_model, files, settings, batch_size=4, labels=labels):
        if result.reconstruction is not None:
            label = labels[result.found.name]
            alone = reconstruct(class_model, result.reconstruction.x_0, settings, labels=[label])
            assert result.label == label
            assert torch.allclose(result.reconstruction.x_T, alone.x_T, atol=1e-4)


def test_labels_are_checked_before_any_work(model: DiffusionModel, class_model: DiffusionModel) -> None:
    files = [FoundImage(Path("a.png"), "a.png")]
    check_labels(model, files, None)
    check_labels(class_model, files, {"a.png": 2})
    with pytest.raises(ConfigError, match="not class-conditional"):
        check_labels(model, files, {"a.png": 0})
    for labels, given in ((None, "no class"), ({"b.png": 0}, "no class"), ({"a.png": 3}, "class 3")):
        with pytest.raises(ConfigError, match=rf"a\.png: {given} is given; .* from 0 to 2"):
            check_labels(class_model, files, labels)


@pytest.mark.parametrize("given", [{"batch_size": 0}, {"batch_size": 1, "workers": 0}])
def test_numbers_below_1_are_refused(model: DiffusionModel, given: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="=0: at least 1 is needed"):
        next(reconstruct_files(model, [], DireSettings.for_model(model), **given))


def test_settings_of_another_model_stop_the_job(model: DiffusionModel, pictures: Path) -> None:
    settings = replace(DireSettings.for_model(model), model_sha256="f" * 64)
    with pytest.raises(Exception, match="model_sha256"):
        list(reconstruct_files(model, find_images([pictures]), settings, batch_size=2))


def test_threads_run_ahead_but_no_further_than_they_may() -> None:
    begun = []

    def items() -> Iterator[int]:
        for item in range(100):
            begun.append(item)
            yield item

    def slow(item: int) -> int:
        time.sleep(0.002)
        return item

    mapped = in_threads(slow, items(), workers=2, ahead=4)
    assert [next(mapped) for _ in range(3)] == [0, 1, 2]
    assert len(begun) <= 3 + 5
    mapped.close()
    assert threading.active_count() < 10


def test_error_in_a_thread_is_raised_at_its_turn() -> None:
    def invert(item: int) -> float:
        return 1 / item

    mapped = in_threads(invert, [2, 1, 0, 4], workers=2, ahead=4)
    assert [next(mapped), next(mapped)] == [0.5, 1.0]
    with pytest.raises(ZeroDivisionError):
        next(mapped)
