"""`rediffuse train classifier` and `rediffuse train superres`: recipes, flags over them, run folders."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from rediffuse.cli.main import main
from rediffuse.diffusion.config import ProcessConfig
from rediffuse.files import write_bytes
from rediffuse.images.encode import png_bytes
from rediffuse.models.config import FrequencyConfig, UNetConfig
from rediffuse.models.unet import UNetModel
from rediffuse.zoo.model import DiffusionModel, Provenance, load

SMALL = ["--image-size", "8", "--channel-mult", "1", "--attention-resolutions", "1", "--batch-size", "2"]
SUPERRES = ["--small-size", "4", "--num-images", "2", "--num-sampling-steps", "2"]


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    """Six images of noise in three classes, and a run folder."""
    rng = np.random.default_rng(0)
    for index in range(6):
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        write_bytes(tmp_path / "images" / "abc"[index % 3] / f"{index}.png", png_bytes(pixels))
    return ["--data", str(tmp_path / "images"), "--out", str(tmp_path / "run")]


@pytest.fixture
def base(tmp_path: Path) -> str:
    """The folder of an untrained diffusion model of 32 channels."""
    config = UNetConfig(image_size=8, model_channels=32, out_channels=6, num_res_blocks=1, channel_mult=(1,))
    provenance = Provenance(source="test", sha256="")
    model = DiffusionModel(network=UNetModel(config), process_config=ProcessConfig(), provenance=provenance)
    model.save(tmp_path / "base")
    return str(tmp_path / "base")


def test_classifier_has_the_classes_of_the_data_and_logs_validation(
    paths: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["train", "classifier", *paths, *SMALL, "--num-steps", "1", "--validation", paths[1]]
    assert main(call) == 0
    printed = capsys.readouterr()
    assert "trained 1 steps" in printed.out
    assert "step 1: validation_loss" in printed.err
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["network"]["out_channels"], config["clean"]) == (3, False)


def test_number_of_classes_that_the_data_lack_is_refused(paths: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "classifier", *paths, *SMALL, "--out-channels", "7", "--clean"]) == 2
    assert "out_channels=7" in capsys.readouterr().err


def test_superres_trains_and_says_what_of_init_it_took(
    paths: list[str], base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["train", "superres", *paths, *SMALL, *SUPERRES, "--num-steps", "1", "--init", base]
    assert main(call) == 0
    printed = capsys.readouterr()
    assert f"from {base}" in printed.err
    assert "not taken  input_blocks.0.0.weight" in printed.err
    assert "psnr_bicubic" in printed.err
    assert json.loads((tmp_path / "run" / "init.json").read_text())["source"] == base


@pytest.mark.parametrize("command", ["classifier", "superres", "diffusion"])
def test_dry_run_prints_cost_and_what_would_be_taken_and_writes_nothing(
    command: str, paths: list[str], base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", command, *paths, "--init", base, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    for line in ("images               6", "operations per step", "memory (estimate)", "initial weights:"):
        assert line in printed
    assert not (tmp_path / "run").exists()


def test_gates_are_trained_on_a_frozen_base_and_put_into_it(
    paths: list[str], base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "diffusion", *paths, "--batch-size", "2", "--num-steps", "2", "--num-images", "1"]
    words += ["--only", "frequency", "--num-bands", "4"]
    assert main(words) == 2
    assert "--init must give the rest of its weights" in capsys.readouterr().err
    assert main([*words, "--init", base, "--dry-run"]) == 0
    assert "of which" in capsys.readouterr().out
    assert main([*words, "--init", base]) == 0
    gates = tmp_path / "run" / "model" / "frequency.safetensors"
    assert main(["convert", base, str(tmp_path / "both"), "--gates", str(gates)]) == 0
    trained, both = (load(folder).network for folder in (tmp_path / "run" / "model", tmp_path / "both"))
    assert trained.config.frequency == both.config.frequency == FrequencyConfig(num_bands=4)
    assert all(torch.equal(both.state_dict()[name], tensor) for name, tensor in trained.state_dict().items())


def test_a_frozen_base_has_to_be_of_the_kind_that_is_trained(
    paths: list[str], base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "superres", *paths, *SUPERRES, "--only", "frequency", "--init", base]) == 2
    assert f"--init {base}: is a unet; a superres is needed" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["diffusion", "classifier", "superres"])
def test_every_network_can_be_trained_with_gates(command: str, paths: list[str], tmp_path: Path) -> None:
    flags = SUPERRES if command == "superres" else []
    assert main(["train", command, *paths, *SMALL, *flags, "--num-steps", "1", "--gates", "--hidden", "3"]) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["network"]["frequency"] == {"num_bands": 8, "num_groups": 32, "hidden": 3}
