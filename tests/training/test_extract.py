"""The model from a run's checkpoint: each of its averages, and the weights themselves."""

from pathlib import Path

import pytest
import torch
from tiny import run, tiny, weights, write_images

from rediffuse.errors import CheckpointError, ConfigError
from rediffuse.training.extract import extract, read_run_state
from rediffuse.zoo.convert import convert
from rediffuse.zoo.model import load


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    run(tiny(write_images(tmp_path_factory.mktemp("data")), num_steps=2), folder)
    return folder


def checkpoint(folder: Path) -> Path:
    return folder / "checkpoints" / "step_00000002.pt"


@pytest.mark.parametrize(("rate", "prefix"), [(None, "0.module."), (0.9, "0.module."), (0.5, "1.module."), (0, "")])
def test_each_average_and_the_weights_themselves(rate: float | None, prefix: str, finished: Path) -> None:
    state = read_run_state(checkpoint(finished))
    assert state is not None
    found = extract(state, checkpoint(finished), rate)
    expected = weights(finished)
    assert found.state.keys() == load(finished / "model").network.state_dict().keys()
    assert all(torch.equal(tensor, expected[prefix + name]) for name, tensor in found.state.items())


def test_what_is_extracted_by_default_is_the_model_that_the_run_exports(finished: Path, tmp_path: Path) -> None:
    state = read_run_state(checkpoint(finished))
    assert state is not None
    convert(extract(state, checkpoint(finished)), tmp_path / "model")
    ours, its = load(tmp_path / "model"), load(finished / "model")
    assert (ours.network.config, ours.process_config) == (its.network.config, its.process_config)
    assert ours.training == its.training
    assert ours.provenance.sha256 == its.provenance.sha256


def test_an_average_that_is_not_kept_is_refused_with_those_that_are(finished: Path) -> None:
    state = read_run_state(checkpoint(finished))
    assert state is not None
    with pytest.raises(ConfigError, match=r"ema=0\.99: the run has 0\.9, 0\.5, 0 \(0: the weights themselves\)"):
        extract(state, checkpoint(finished), 0.99)


def test_the_training_of_something_else_is_refused(finished: Path) -> None:
    state = read_run_state(checkpoint(finished))
    assert state is not None
    state["config"]["task"] = "map detector"
    with pytest.raises(CheckpointError, match="the checkpoint of a map detector training; diffusion, superres"):
        extract(state, checkpoint(finished))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"config": 5}, "config is 5; dict is needed"),
        ({"averages": []}, "has 0 averages, but"),
        ({"step": None}, "step is None; int is needed"),
        ({"config": {"task": "diffusion"}}, "loop is None; dict is needed"),
        ({"averages": [{1: 2}, {}]}, "holds dict, not named tensors"),
    ],
)
def test_a_damaged_record_is_one_line(finished: Path, tmp_path: Path, change: dict[str, object], line: str) -> None:
    state = torch.load(next((finished / "checkpoints").glob("*.pt")), weights_only=True)
    torch.save({**state, **change}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=rf"a\.pt: {line}"):
        extract(state | change, tmp_path / "a.pt")


def test_other_files_are_no_run_states(finished: Path, tmp_path: Path) -> None:
    assert read_run_state(finished) is None
    assert read_run_state(finished / "config.json") is None
    (tmp_path / "damaged.pt").write_bytes(b"no checkpoint")
    assert read_run_state(tmp_path / "damaged.pt") is None
    torch.save({"model": {}, "step": 3}, tmp_path / "other.pt")
    assert read_run_state(tmp_path / "other.pt") is None
