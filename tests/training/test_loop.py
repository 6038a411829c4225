"""The result of a run depends only on its config and data, not on kills, microbatches or processes."""

import importlib.metadata
import json
import signal
import subprocess
import sys
import time
from collections.abc import Container
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import run, tiny, weights, write_images
from torch import Tensor

from faults import files_at_most
from processes import torchrun
from rediffuse.errors import CheckpointError, ConfigError, InputError, StorageError
from rediffuse.files import claim
from rediffuse.training.config import DiffusionTraining
from rediffuse.training.diffusion import DiffusionTask
from rediffuse.training.loop import train
from rediffuse.training.task import Batch, Terms
from rediffuse.training.trainer import TrainingDiverged
from rediffuse.zoo.model import load

PROGRAM = Path(__file__).with_name("tiny.py")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole_run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six steps without interruption."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run(tiny(data), folder)
    return folder


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def checkpoints(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "checkpoints").iterdir()}


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same_course(a: Path, b: Path) -> None:
    """Losses and gradients agree in every step. Weights need not: Adam's steps do not depend on the size of a gradient,
    also if it is zero except for rounding, like that of a bias which the next normalisation removes."""
    for line, other in zip(log(a), log(b), strict=True):
        del line["images_per_second"], other["images_per_second"]
        assert line == pytest.approx(other, rel=1e-4)


class Stopping(DiffusionTask):
    """Sends this process a signal in its third step."""

    def __init__(self, config: DiffusionTraining, number: signal.Signals) -> None:
        super().__init__(config)
        self.number, self.num_draws = number, 0

    def draw(self, batch: Batch, place) -> Batch:
        self.num_draws += 1
        if self.num_draws == 3:
            signal.raise_signal(self.number)
        return super().draw(batch, place)


class Exploding(DiffusionTask):
    """A task whose loss is not a number in the given steps; by default from the fourth step on."""

    def __init__(self, config: DiffusionTraining, bad_losses: Container[int] = range(4, 1000)) -> None:
        super().__init__(config)
        self.bad_losses, self.num_losses = bad_losses, 0

    def loss(self, network, batch: Batch) -> Terms:
        self.num_losses += 1
        terms = super().loss(network, batch)
        return terms | {"loss": terms["loss"] * torch.nan} if self.num_losses in self.bad_losses else terms


def test_run_folder_holds_config_log_samples_checkpoints_and_the_model(whole_run: Path) -> None:
    assert [line["step"] for line in log(whole_run)] == [1, 2, 3, 4, 5, 6]
    assert {"loss", "mse", "vb", "gradient_norm", "images_per_second"} <= log(whole_run)[0].keys()
    assert json.loads((whole_run / "starts.jsonl").read_text())["versions"]["torch"] == importlib.metadata.version(
        "torch"
    )
    assert json.loads((whole_run / "config.json").read_text())["network"]["image_size"] == 8
    assert (whole_run / "images.arrow").exists()
    assert [path.name for path in (whole_run / "samples").iterdir()] == ["step_00000006.png"]
    model = load(whole_run / "model")
    averaged = weights(whole_run)["0.module.out.2.weight"]
    assert torch.equal(model.network.state_dict()["out.2.weight"], averaged)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_run_that_was_killed_while_it_wrote_its_model_writes_it_when_it_is_called_again(
    name: str, data: Path, tmp_path: Path
) -> None:
    run(tiny(data, 2), tmp_path)
    path = tmp_path / "model" / name
    content = path.read_bytes()
    path.unlink()
    run(tiny(data, 2), tmp_path)
    assert path.read_bytes() == content


def test_finished_run_can_be_made_longer_and_exports_anew(data: Path, tmp_path: Path) -> None:
    for num_steps in (2, 3):
        assert run(tiny(data, num_steps), tmp_path).step == num_steps
    exported = load(tmp_path / "model").network.state_dict()["out.2.weight"]
    assert torch.equal(exported, weights(tmp_path)["0.module.out.2.weight"])


def test_workers_change_nothing(data: Path, whole_run: Path, tmp_path: Path) -> None:
    run(tiny(data, num_workers=2), tmp_path)
    assert equal(weights(tmp_path), weights(whole_run))


def test_steps_that_are_drawn_ahead_resume_bit_equal_and_are_logged_as_means(data: Path, tmp_path: Path) -> None:
    for num_steps in (3, 6):
        run(replace(tiny(data, num_steps), timestep_sampler="uniform"), tmp_path / "resumed")
    run(replace(tiny(data, log_every=4, num_workers=1), timestep_sampler="uniform"), tmp_path / "whole")
    assert equal(weights(tmp_path / "resumed"), weights(tmp_path / "whole"))
    losses = [line["loss"] for line in log(tmp_path / "resumed")]
    means = [sum(losses[:4]) / 4, sum(losses[4:]) / 2]
    assert [line["loss"] for line in log(tmp_path / "whole")] == pytest.approx(means)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_writes_a_checkpoint_from_which_the_run_goes_on_bit_equal(
    number: signal.Signals, data: Path, whole_run: Path, tmp_path: Path
) -> None:
    config = tiny(data)
    outcome = train(Stopping(config, number), config.loop, tmp_path / "run")
    assert (outcome.step, outcome.stopped_by) == (3, number)
    assert not (tmp_path / "run" / "model").exists()
    assert run(config, tmp_path / "run").step == 6
    assert checkpoints(tmp_path / "run")["step_00000006.pt"] == checkpoints(whole_run)["step_00000006.pt"]
    assert [line["step"] for line in log(tmp_path / "run")] == [1, 2, 3, 4, 5, 6]


def test_samples_that_a_stop_left_out_are_made_when_the_training_goes_on(data: Path, tmp_path: Path) -> None:
    config = tiny(data, evaluate_every=3, save_every=3)
    assert train(Stopping(config, signal.SIGTERM), config.loop, tmp_path / "run").step == 3
    assert not (tmp_path / "run" / "samples").exists()
    for folder in ("run", "whole"):
        run(config, tmp_path / folder)
    stopped, whole = (
        {path.name: path.read_bytes() for path in (tmp_path / folder / "samples").iterdir()}
        for folder in ("run", "whole")
    )
    assert stopped == whole
    assert set(whole) == {"step_00000003.png", "step_00000006.png"}
    assert checkpoints(tmp_path / "run") == checkpoints(tmp_path / "whole")


def test_killed_process_resumes_bit_equal(data: Path, tmp_path: Path) -> None:
    killed, alone = tmp_path / "killed", tmp_path / "alone"
    process = subprocess.Popen([sys.executable, str(PROGRAM), str(data), str(killed), "20"], stderr=subprocess.DEVNULL)
    while not list(killed.glob("checkpoints/step_*")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (killed / "model").exists()
    for folder in (killed, alone):
        run(tiny(data, 20), folder)
    assert len((killed / "starts.jsonl").read_text().splitlines()) == 2
    assert checkpoints(killed)["step_00000020.pt"] == checkpoints(alone)["step_00000020.pt"]


def test_two_processes_equal_one(data: Path, tmp_path: Path) -> None:
    torchrun(str(PROGRAM), str(data), str(tmp_path / "two"), "4", "without dropout: it differs by process")
    run(tiny(data, 4, network={"dropout": 0.0}), tmp_path / "one")
    assert_same_course(tmp_path / "two", tmp_path / "one")


def test_microbatches_equal_one_batch(data: Path, tmp_path: Path) -> None:
    for microbatch in (None, 3):
        run(tiny(data, 4, network={"dropout": 0.0}, microbatch=microbatch), tmp_path / str(microbatch))
    assert_same_course(tmp_path / "3", tmp_path / "None")


def test_nan_streak_stops_and_keeps_the_last_good_checkpoint(data: Path, tmp_path: Path) -> None:
    config = tiny(data, 50, save_every=1, keep=1, max_bad_steps=3, network={"dropout": 0.0})
    with pytest.raises(TrainingDiverged, match=r"step 6: the last 3 steps had no finite loss"):
        train(Exploding(config), config.loop, tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000003.pt"]
    assert all(value.isfinite().all() for value in weights(tmp_path).values())


def test_checkpoint_that_falls_on_a_bad_step_is_written_after_it(data: Path, tmp_path: Path) -> None:
    config = tiny(data, 6, save_every=4, network={"dropout": 0.0})
    train(Exploding(config, bad_losses=(4,)), config.loop, tmp_path)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "step_00000005.pt",
        "step_00000006.pt",
    ]


def test_another_config_is_refused_by_the_fields_that_differ(data: Path, whole_run: Path) -> None:
    before = weights(whole_run)
    with pytest.raises(ConfigError, match=r"timestep_sampler was .*; loop\.learning_rate was 0\.001, given 0\.5"):
        run(replace(tiny(data, learning_rate=0.5), timestep_sampler="uniform"), whole_run)
    assert equal(weights(whole_run), before)


def test_other_images_are_refused(whole_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fingerprint was"):
        run(tiny(write_images(tmp_path, 4)), whole_run)


def test_fewer_steps_than_done_are_refused(data: Path, whole_run: Path) -> None:
    with pytest.raises(ConfigError, match=r"num_steps=5: .* already has 6 steps"):
        run(tiny(data, 5), whole_run)


def test_folder_with_other_files_is_refused(data: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match="is not empty and not a run folder"):
        run(tiny(data), tmp_path)


@pytest.mark.parametrize(
    ("content", "line"),
    [("{", r"config\.json: cannot be read as JSON"), ("[]", r"holds \[\]; a JSON object is needed")],
)
def test_damaged_config_is_named(content: str, line: str, data: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=line):
        run(tiny(data), tmp_path)


def test_damaged_checkpoint_is_named(data: Path, tmp_path: Path) -> None:
    run(tiny(data, 1), tmp_path)
    newest = tmp_path / "checkpoints" / "step_00000001.pt"
    newest.write_bytes(newest.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"step_00000001\.pt: cannot be read"):
        run(tiny(data, 2), tmp_path)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"step": "no"}, "ValueError"),
        ({"step": -1}, "step=-1"),
        ({"averages": []}, "ValueError"),
        ({"task": 3}, "TypeError"),
    ],
)
def test_checkpoint_of_something_else_is_named(
    data: Path, whole_run: Path, tmp_path: Path, change: dict[str, Any], error: str
) -> None:
    run(tiny(data, 1), tmp_path)
    newest = tmp_path / "checkpoints" / "step_00000001.pt"
    state = torch.load(newest, weights_only=True)
    for content in ({**state, **change}, {name: state[name] for name in state if name not in change}):
        torch.save(content, newest)
        with pytest.raises(
            CheckpointError, match=rf"step_00000001\.pt: is not the complete state .*({error}|KeyError)"
        ):
            run(tiny(data, 2), tmp_path)


def test_a_checkpoint_with_nan_is_named(data: Path, tmp_path: Path) -> None:
    run(tiny(data, 1), tmp_path)
    newest = tmp_path / "checkpoints" / "step_00000001.pt"
    state = torch.load(newest, weights_only=True)
    state["averages"][1]["module.out.2.bias"][0] = torch.nan
    torch.save(state, newest)
    with pytest.raises(
        CheckpointError, match=r"step_00000001\.pt: 1 of [\d,]+ values are NaN or infinite: module\.out"
    ):
        run(tiny(data, 2), tmp_path)


def test_damaged_lines_of_the_log_are_left_out(data: Path, tmp_path: Path) -> None:
    run(tiny(data, 1), tmp_path)
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'[1]\n"step"\n{"step": []}\n\xff\n{"st')
    run(tiny(data, 2), tmp_path)
    assert [line["step"] for line in log(tmp_path)] == [1, 2]


def test_a_full_disk_is_one_line_and_leaves_no_half_checkpoint(data: Path, tmp_path: Path) -> None:
    run(tiny(data, 1, save_every=1), tmp_path)
    with files_at_most(50_000), pytest.raises(StorageError, match=r"step_00000002\.pt: could not be written: File too"):
        run(tiny(data, 3, save_every=1), tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000001.pt"]
    run(tiny(data, 3, save_every=1), tmp_path)
    assert log(tmp_path)[-1]["step"] == 3


def test_a_second_run_in_a_folder_is_told_to_wait(data: Path, tmp_path: Path) -> None:
    with claim(tmp_path), pytest.raises(StorageError, match="another process is writing to this folder; wait until"):
        run(tiny(data), tmp_path)


def test_what_a_killed_run_was_writing_goes(data: Path, tmp_path: Path) -> None:
    run(tiny(data, 1), tmp_path)
    partial = tmp_path / "checkpoints" / ".step_00000002.pt.0c3f81ab.pt"
    for path in (partial, tmp_path / ".rediffuse.lock"):
        path.touch()
    run(tiny(data, 2), tmp_path)
    assert not partial.exists()


def test_only_the_last_checkpoints_are_kept(data: Path, tmp_path: Path) -> None:
    run(tiny(data, 5, save_every=1, keep=2), tmp_path)
    assert sorted(path.stem for path in (tmp_path / "checkpoints").iterdir()) == ["step_00000004", "step_00000005"]


def test_fp16_needs_a_gpu(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="precision=fp16: needs a GPU"):
        run(tiny(data, precision="fp16", device="cpu"), tmp_path)


def test_bf16_trains_on_a_cpu_with_full_precision_weights(data: Path, tmp_path: Path) -> None:
    run(tiny(data, 2, precision="bf16"), tmp_path)
    assert all(value.dtype != torch.bfloat16 for value in weights(tmp_path).values())
    assert log(tmp_path)[1]["gradient_norm"] > 0
