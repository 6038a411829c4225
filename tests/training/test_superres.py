"""The training of the super-resolution model: its pairs of images, its figures, the model it writes."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny import tiny_superres, write_images

from rediffuse.errors import ConfigError
from rediffuse.models.superres import SuperResModel
from rediffuse.training.loop import train
from rediffuse.training.superres import SuperResTask, psnr, shrink
from rediffuse.zoo.model import load


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images")


def test_small_images_are_means_of_areas() -> None:
    large = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert shrink(large, 2).tolist() == [[[[2.5, 4.5], [10.5, 12.5]]]]


def test_psnr_is_in_decibels_of_the_range() -> None:
    reference = torch.zeros(2, 3, 4, 4)
    images = torch.stack([torch.full((3, 4, 4), 0.2), torch.zeros(3, 4, 4)])
    assert psnr(images, reference).tolist() == pytest.approx([20.0, 106.02], abs=0.01)


def test_network_is_shown_the_small_image_and_the_class(data: Path) -> None:
    task = SuperResTask(tiny_superres(data))
    batch = task.data()[range(3)]
    conditioning = task.conditioning(batch)
    assert conditioning.keys() == {"low_res"}
    assert torch.equal(conditioning["low_res"], shrink(batch["x_0"], 4))


def test_run_writes_triples_figures_and_a_model_that_knows_what_it_enlarges(data: Path, tmp_path: Path) -> None:
    config = tiny_superres(data)
    train(SuperResTask(config), config.loop, tmp_path / "run")
    with Image.open(tmp_path / "run" / "samples" / "step_00000002.png") as image:
        assert image.size == (2 * 3 * 8, 2 * 8)  # three triples, as square as can be
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["psnr_bicubic"] > 5
    assert last.keys() == {"step", "psnr", "psnr_bicubic"}
    model = load(tmp_path / "run" / "model")
    assert isinstance(model.network, SuperResModel)
    assert model.training["small_size"] == 4


def test_grid_shows_validation_images_from_all_over_the_folder(data: Path, tmp_path: Path) -> None:
    shown = write_images(tmp_path / "validation", 6)
    task = SuperResTask(tiny_superres(data, validation=str(shown)))
    task.data()
    assert task.shown["x_0"].shape == (3, 3, 8, 8)
    assert sorted(task.shown["y"].tolist()) == [0, 0, 1]


@pytest.mark.parametrize("size", [0, 8])
def test_small_size_has_to_be_smaller(data: Path, size: int) -> None:
    with pytest.raises(ConfigError, match=rf"small_size={size}: at least 1 and less than image_size=8 is needed"):
        tiny_superres(data, small_size=size)
