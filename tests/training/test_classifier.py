"""The training of the classifier of noisy images: its inputs, its figures, and that it learns."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import tiny_classifier, weights, write_images

from rediffuse.errors import ConfigError, InputError
from rediffuse.files import write_bytes
from rediffuse.images.encode import png_bytes
from rediffuse.training.classifier import ClassifierTask
from rediffuse.training.loop import train
from rediffuse.training.randomness import Place
from rediffuse.zoo.model import load_classifier

PLACE = Place(0, 0, 4, range(4))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images")


def write_plain(folder: Path, levels: dict[str, int]) -> Path:
    """Four images of one grey per class."""
    for name, level in levels.items():
        for index in range(4):
            write_bytes(folder / name / f"{index}.png", png_bytes(np.full((8, 8, 3), level, np.uint8)))
    return folder


def write_stripes(folder: Path) -> Path:
    """Two images, horizontal and vertical stripes: in such a small network normalisation would remove plain greys."""
    lying = np.zeros((8, 8, 3), np.uint8)
    lying[::2] = 255
    for name, pixels in {"lying": lying, "standing": lying.swapaxes(0, 1)}.items():
        write_bytes(folder / name / "0.png", png_bytes(np.ascontiguousarray(pixels)))
    return folder


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_it_is_shown_q_samples_at_the_drawn_timesteps(data: Path) -> None:
    task = ClassifierTask(tiny_classifier(data))
    images = task.data()
    batch = images[range(4)]
    drawn = task.draw(batch, PLACE)
    at = task.process.schedule.at
    noise = (drawn["x_t"] - at("sqrt_alpha_bar", drawn["t"], batch["x_0"]) * batch["x_0"]) / at(
        "sqrt_one_minus_alpha_bar", drawn["t"], batch["x_0"]
    )
    assert abs(noise.mean()) < 0.15
    assert noise.std() == pytest.approx(1, abs=0.1)
    assert torch.equal(drawn["y"], batch["y"])


def test_two_processes_draw_the_halves_of_one(data: Path) -> None:
    task = ClassifierTask(tiny_classifier(data))
    images = task.data()
    whole, *halves = (
        task.draw(images[part], Place(0, 2, 4, part)) for part in (range(8, 12), range(8, 10), range(10, 12))
    )
    for name, value in whole.items():
        assert torch.equal(value, torch.cat([half[name] for half in halves])), name


def test_clean_training_sees_images_as_they_are_at_t_0(data: Path) -> None:
    task = ClassifierTask(tiny_classifier(data, clean=True))
    batch = task.data()[range(4)]
    drawn = task.draw(batch, PLACE)
    assert torch.equal(drawn["x_t"], batch["x_0"])
    assert not drawn["t"].any()
    assert "loss_q0" not in task.observe({"loss": torch.ones(4), "t": drawn["t"]})


def test_top1_and_top5_count_the_classes_that_score_as_high(data: Path) -> None:
    task = ClassifierTask(tiny_classifier(data))
    logits = torch.tensor(
        [[9.0, 1, 2, 3, 4, 5, 6], [5, 1, 2, 3, 4, 9, 9], [0, 1, 2, 3, 4, 5, 6], [0, 0, 0, 0, 0, 0, 0]]
    )
    batch = {"x_t": torch.zeros(4, 1), "t": torch.tensor([0, 10, 20, 39]), "y": torch.zeros(4, dtype=torch.int64)}
    terms = task.loss(lambda x_t, timesteps: logits, batch)  # type: ignore[arg-type]
    assert terms["top1"].tolist() == [1, 0, 0, 0]
    assert terms["top5"].tolist() == [1, 1, 0, 0]
    assert task.observe(terms)["top5_q1"].tolist() == [1]


def test_it_learns_and_exports_a_classifier(tmp_path: Path) -> None:
    data = write_stripes(tmp_path / "images")
    config = tiny_classifier(data, 40, validation=str(data))
    config = replace(config, loop=replace(config.loop, learning_rate=3e-3, decay="linear", evaluate_every=20))
    train(ClassifierTask(config), config.loop, tmp_path / "run")
    judged = [line for line in metrics(tmp_path / "run") if "validation_loss" in line]
    assert [line["step"] for line in judged] == [20, 40]
    losses = [line["loss"] for line in metrics(tmp_path / "run") if "loss" in line]
    assert losses[0] == pytest.approx(np.log(2), abs=1e-4)
    assert np.mean(losses[-10:]) < 0.66
    assert judged[-1]["validation_top1"] == 1
    model = load_classifier(tmp_path / "run" / "model")
    assert (model.num_classes, model.image_size, model.training["task"]) == (2, 8, "classifier")
    assert model.training["classes"] == [path.name for path in sorted(data.iterdir())]
    assert torch.equal(model.network.state_dict()["out.3.weight"], weights(tmp_path / "run")["out.3.weight"])


def test_validation_is_the_same_every_time_and_sees_every_image_once(data: Path) -> None:
    task = ClassifierTask(tiny_classifier(data, validation=str(data)))
    task.data()
    network = task.build().eval()
    network.out[3].bias.data.copy_(torch.tensor([1.0, 0.0]))
    first, second = (task.evaluate(network, data, step) for step in (1, 2))
    assert first == second
    assert first["validation_top1"] == 0.5  # it always predicts the same class, that of half of the ten images


def test_validation_classes_have_the_numbers_of_the_training(tmp_path: Path) -> None:
    data = write_plain(tmp_path / "train", {"a": 0, "b": 128, "c": 255})
    few = write_plain(tmp_path / "validation", {"c": 255})
    config = tiny_classifier(data, validation=str(few))
    task = ClassifierTask(replace(config, network=replace(config.network, out_channels=3)))
    task.data()
    assert task.validation is not None
    assert task.validation[range(2)]["y"].tolist() == [2, 2]


def test_validation_class_that_the_training_lacks_is_named(data: Path, tmp_path: Path) -> None:
    other = write_plain(tmp_path / "validation", {"cats": 0, "dog": 9})
    with pytest.raises(
        InputError, match=r"cats/0\.png has class 'cats'; did you mean cat\?; the training has cat, dog"
    ):
        ClassifierTask(tiny_classifier(data, validation=str(other))).data()


def test_images_without_classes_are_refused(data: Path) -> None:
    with pytest.raises(InputError, match="has no classes"):
        ClassifierTask(tiny_classifier(data / "cat")).data()


def test_other_number_of_classes_is_refused(data: Path) -> None:
    config = tiny_classifier(data)
    with pytest.raises(ConfigError, match=r"out_channels=7: .* has 2 classes"):
        ClassifierTask(replace(config, network=replace(config.network, out_channels=7))).data()
