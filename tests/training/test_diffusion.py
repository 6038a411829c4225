"""The diffusion task: its timesteps and noise, its statistics, its sample grids."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny import run, tiny, weights, write_images

from rediffuse.errors import ConfigError
from rediffuse.training.config import GridConfig
from rediffuse.training.diffusion import DiffusionTask
from rediffuse.training.randomness import Place
from rediffuse.zoo.model import load


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images")


def test_two_processes_draw_the_halves_of_one(data: Path) -> None:
    task = DiffusionTask(tiny(data))
    images = task.data()
    drawn = [
        task.draw(images[positions], Place(0, 2, 4, positions))
        for positions in (range(8, 12), range(8, 10), range(10, 12))
    ]
    for name, whole in drawn[0].items():
        assert torch.equal(whole, torch.cat([drawn[1][name], drawn[2][name]])), name


def test_every_term_of_the_loss_is_logged_by_quartile_of_t(data: Path) -> None:
    task = DiffusionTask(tiny(data))
    values = {name: torch.arange(5.0) for name in ("loss", "mse", "vb", "unweighted")}
    logged = task.observe({**values, "t": torch.tensor([0, 9.0, 10, 20, 39])})
    for name in ("loss", "mse", "vb"):
        assert [logged[f"{name}_q{q}"].tolist() for q in range(4)] == [[0, 1], [2], [3], [4]]
    assert "unweighted_q0" not in logged
    assert task.timestep_sampler.state_dict()["counts"].sum() == 5


def test_a_grid_of_steps_that_the_chain_lacks_fails_before_the_training(data: Path) -> None:
    with pytest.raises(ConfigError, match="ddim37"):
        DiffusionTask(replace(tiny(data), grid=GridConfig(num_images=3, num_sampling_steps=37)))


def test_class_conditional_training_uses_the_labels(data: Path, tmp_path: Path) -> None:
    run(tiny(data, 2, network={"num_classes": 2}), tmp_path / "run")
    assert load(tmp_path / "run" / "model").network.config.num_classes == 2
    assert weights(tmp_path / "run")["label_emb.weight"].shape == (2, 128)


def test_other_number_of_classes_is_refused(data: Path) -> None:
    with pytest.raises(ConfigError, match=r"num_classes=3: .* has 2 classes"):
        DiffusionTask(tiny(data, network={"num_classes": 3})).data()


def test_grid_is_the_same_picture_every_time(data: Path, tmp_path: Path) -> None:
    config = tiny(data)
    task = DiffusionTask(replace(config, grid=replace(config.grid, num_images=3)))
    network = task.build().eval()
    for step in (1, 2):
        task.evaluate(network, tmp_path, step)
    first, second = (tmp_path / f"step_0000000{step}.png" for step in (1, 2))
    assert first.read_bytes() == second.read_bytes()
    with Image.open(first) as image:
        assert image.size == (16, 16)
