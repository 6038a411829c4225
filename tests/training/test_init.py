"""Training that starts from the weights of another model."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import run, tiny, tiny_classifier, tiny_superres, weights, write_images

from rediffuse.errors import CheckpointError, ConfigError, InputError
from rediffuse.models.unet import UNetModel
from rediffuse.training.classifier import ClassifierTask
from rediffuse.training.config import DiffusionTraining
from rediffuse.training.diffusion import DiffusionTask
from rediffuse.training.initial import compare_with, copy_fitting, read_initial
from rediffuse.training.loop import train
from rediffuse.training.superres import SuperResTask
from rediffuse.zoo.model import load


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def base(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps."""
    folder = tmp_path_factory.mktemp("runs") / "base"
    run(tiny(data, 2), folder)
    return folder


def begin(config: DiffusionTraining, folder: Path, init: Path | str | None) -> None:
    train(DiffusionTask(config), config.loop, folder, init=None if init is None else str(init))


def test_every_tensor_that_fits_is_copied(data: Path, base: Path) -> None:
    network = DiffusionTask(tiny(data)).build()
    transfer = copy_fitting(network, read_initial(str(base / "model")))
    assert not transfer.not_taken
    given = load(base / "model").network.state_dict()
    assert all(torch.equal(tensor, given[name]) for name, tensor in network.state_dict().items())


def test_weights_that_are_not_finite_are_refused(data: Path, base: Path, tmp_path: Path) -> None:
    state = torch.load(base / "checkpoints" / "step_00000002.pt", weights_only=True)
    state["averages"][0]["module.out.2.bias"].fill_(torch.nan)
    torch.save(state, tmp_path / "nan.pt")
    with pytest.raises(CheckpointError, match=r"nan\.pt: 6 of [\d,]+ values are NaN or infinite: out\.2\.bias"):
        begin(tiny(data), tmp_path / "run", tmp_path / "nan.pt")


def test_a_checkpoint_of_a_run_gives_what_the_run_exports(base: Path) -> None:
    exported, checkpoint = (read_initial(str(base / path)) for path in ("model", "checkpoints/step_00000002.pt"))
    assert all(torch.equal(tensor, checkpoint.state[name]) for name, tensor in exported.state.items())


def test_classes_and_variance_may_differ(data: Path, base: Path) -> None:
    network = UNetModel(replace(tiny(data).network, num_classes=2, image_size=16, out_channels=3))
    transfer = compare_with(network.state_dict(), read_initial(str(base / "model")))
    assert {row.name: (row.network, row.source) for row in transfer.not_taken} == {
        "label_emb.weight": ("2x128", None),
        "out.2.weight": ("3x32x3x3", "6x32x3x3"),
        "out.2.bias": ("3", "6"),
    }


def test_the_table_shows_blocks_taken_and_tensors_not_taken(data: Path, base: Path) -> None:
    network = SuperResTask(tiny_superres(data)).build()
    lines = str(compare_with(network.state_dict(), read_initial(str(base / "model")))).splitlines()
    num_tensors = len(network.state_dict())
    assert lines[0] == f"initial weights: {num_tensors - 1} of {num_tensors} tensors from {base / 'model'}"
    assert f"taken      {'time_embed.*':<23}  4 tensors" in lines
    assert lines[-1] == "not taken  input_blocks.0.0.weight  32x6x3x3 in the network, 32x3x3x3 in the source"


def test_a_classifier_takes_the_encoder_of_a_diffusion_model(data: Path, base: Path, tmp_path: Path) -> None:
    config = tiny_classifier(data, 1)
    train(ClassifierTask(config), config.loop, tmp_path / "run", init=str(base / "model"))
    record = json.loads((tmp_path / "run" / "init.json").read_text())
    assert record["source"] == str(base / "model")
    assert record["taken"]["input_blocks.0.0.weight"] == "32x3x3x3"
    assert {row["name"].split(".")[0] for row in record["not_taken"]} == {"out", "output_blocks"}


def test_weights_and_averages_begin_with_it_and_the_model_says_so(data: Path, base: Path, tmp_path: Path) -> None:
    begin(tiny(data, 1, learning_rate=1e-12), tmp_path / "run", base / "model")
    given, begun = load(base / "model").network.state_dict(), weights(tmp_path / "run")
    assert torch.allclose(begun["out.2.weight"], given["out.2.weight"], atol=1e-9)
    assert torch.allclose(begun["0.module.out.2.weight"], given["out.2.weight"], atol=1e-9)
    assert load(tmp_path / "run" / "model").training["init"]["source"] == str(base / "model")


def test_only_the_first_start_reads_it(data: Path, base: Path, tmp_path: Path) -> None:
    source = load(base / "model")
    source.save(tmp_path / "source")
    begin(tiny(data, 2, save_every=1), tmp_path / "whole", tmp_path / "source")
    begin(tiny(data, 1, save_every=1), tmp_path / "run", tmp_path / "source")
    (tmp_path / "source" / "model.safetensors").unlink()
    begin(tiny(data, 2, save_every=1), tmp_path / "run", tmp_path / "source")
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "run")
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())
    begin(tiny(data, 2), tmp_path / "run", None)


def test_a_run_goes_on_from_no_other_model_than_it_began_with(data: Path, base: Path, tmp_path: Path) -> None:
    begin(tiny(data, 1), tmp_path / "run", None)
    with pytest.raises(ConfigError, match=r"the run began with init None, given default; leave --init out to continue"):
        begin(tiny(data, 2), tmp_path / "run", "default")


def test_a_model_of_which_nothing_fits_is_refused_before_anything_is_written(
    data: Path, base: Path, tmp_path: Path
) -> None:
    plain = tiny(data)
    config = replace(
        plain,
        network=replace(plain.network, model_channels=64, out_channels=3),
        process=replace(plain.process, variance="fixed_large"),
    )
    with pytest.raises(CheckpointError, match=r"none of its \d+ tensors fits the network to train"):
        begin(config, tmp_path / "run", base / "model")
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_model_that_is_not_there_is_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no such folder or file"):
        begin(tiny(data), tmp_path / "run", "nowhere")
