"""Training only spectral gates: the weights of the base do not change by a bit."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import run, tiny, tiny_superres, weights, write_images

from rediffuse.errors import CheckpointError, ConfigError
from rediffuse.models.config import FrequencyConfig
from rediffuse.training.config import DiffusionTraining
from rediffuse.training.diffusion import DiffusionTask
from rediffuse.training.loop import Outcome, train
from rediffuse.training.superres import SuperResTask
from rediffuse.zoo.model import load

GATES = FrequencyConfig(num_bands=3, num_groups=4, hidden=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def base(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "base"
    run(tiny(data, 2), folder)
    return folder / "model"


def gates_alone(data: Path, num_steps: int = 2, **loop: object) -> DiffusionTraining:
    return replace(tiny(data, num_steps, {"frequency": GATES}, **loop), only="frequency")


def begin(config: DiffusionTraining, folder: Path, base: Path | None) -> Outcome:
    return train(DiffusionTask(config), config.loop, folder, init=None if base is None else str(base))


def test_the_base_stays_and_the_gates_move(data: Path, base: Path, tmp_path: Path) -> None:
    begin(gates_alone(data), tmp_path / "run", base)
    before, after = (load(folder).network.state_dict() for folder in (base, tmp_path / "run" / "model"))
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert all(after[name].any() for name in after if name.endswith(("offset", "out.weight")))


def test_the_gates_are_exported_alone_too(data: Path, base: Path, tmp_path: Path) -> None:
    begin(gates_alone(data), tmp_path / "run", base)
    model = tmp_path / "run" / "model"
    gates, whole = load_file(model / "frequency.safetensors"), load(model).network.state_dict()
    assert gates.keys() == {name for name in whole if name.startswith("frequency.")}
    assert all(torch.equal(whole[name], tensor) for name, tensor in gates.items())
    merged = load(base, frequency=model / "frequency.safetensors").network.state_dict()
    assert all(torch.equal(merged[name], tensor) for name, tensor in whole.items())


def test_the_optimiser_keeps_moments_of_the_gates_alone(data: Path, base: Path, tmp_path: Path) -> None:
    begin(gates_alone(data), tmp_path / "run", base)
    [checkpoint] = (tmp_path / "run" / "checkpoints").glob("*.pt")
    moments = torch.load(checkpoint, weights_only=True)["optimizer"]["state"]
    gates = load_file(tmp_path / "run" / "model" / "frequency.safetensors")
    assert sorted(moment["exp_avg"].shape for moment in moments.values()) == sorted(t.shape for t in gates.values())


def test_a_run_in_two_parts_is_one_run(data: Path, base: Path, tmp_path: Path) -> None:
    begin(gates_alone(data, 3), tmp_path / "whole", base)
    begin(gates_alone(data, 2), tmp_path / "parts", base)
    begin(gates_alone(data, 3), tmp_path / "parts", None)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(parts[name], tensor) for name, tensor in whole.items())


def test_gates_go_on_from_gates(data: Path, base: Path, tmp_path: Path) -> None:
    begin(gates_alone(data), tmp_path / "first", base)
    begin(gates_alone(data), tmp_path / "second", tmp_path / "first" / "model")
    taken = json.loads((tmp_path / "second" / "init.json").read_text())["taken"]
    assert "frequency.0.offset" in taken


def test_an_upsampler_trains_its_gates_alone(data: Path, tmp_path: Path) -> None:
    config = tiny_superres(data)
    train(SuperResTask(config), config.loop, tmp_path / "base")
    gated = replace(config, network=replace(config.network, frequency=GATES), only="frequency")
    train(SuperResTask(gated), gated.loop, tmp_path / "run", init=str(tmp_path / "base" / "model"))
    before, after = (load(tmp_path / name / "model").network.state_dict() for name in ("base", "run"))
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_a_network_that_is_trained_whole_trains_its_gates_too(data: Path, tmp_path: Path) -> None:
    run(tiny(data, 3, {"frequency": GATES}), tmp_path / "run")
    assert (tmp_path / "run" / "model" / "frequency.safetensors").exists()
    assert load(tmp_path / "run" / "model").network.state_dict()["frequency.0.offset"].any()


def test_without_a_base_there_is_nothing_to_freeze(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--init must give the rest of its weights"):
        begin(gates_alone(data), tmp_path / "run", None)
    assert not (tmp_path / "run").exists()


def test_a_base_that_lacks_weights_is_refused(data: Path, base: Path, tmp_path: Path) -> None:
    config = gates_alone(data)
    config = replace(config, network=replace(config.network, num_classes=2))
    with pytest.raises(CheckpointError, match=r"lacks label_emb\.weight"):
        begin(config, tmp_path / "run", base)
    assert not (tmp_path / "run").exists()


def test_a_network_without_gates_cannot_train_them(data: Path) -> None:
    with pytest.raises(ConfigError, match="the network has no spectral gates"):
        replace(tiny(data), only="frequency")
