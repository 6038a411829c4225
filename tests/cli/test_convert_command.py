"""`rediffuse convert` and `rediffuse info` as they are called."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from golden_values import fill
from rediffuse.cli.main import main
from rediffuse.diffusion.config import ProcessConfig
from rediffuse.models.config import UNetConfig
from rediffuse.models.unet import UNetModel
from rediffuse.zoo.model import DiffusionModel, Provenance, load

CONFIG = UNetConfig(image_size=8, model_channels=32, channel_mult=(1, 2), num_res_blocks=1, num_head_channels=16)
PROCESS = ProcessConfig(schedule="cosine", num_timesteps=100, variance="fixed_large")
TOLD = ("--image-size", "8", "--num-head-channels", "16", "--attention-order", "legacy")


@pytest.fixture
def folder(tmp_path: Path) -> str:
    DiffusionModel(
        network=fill(UNetModel(CONFIG)), process_config=PROCESS, provenance=Provenance(source="test", sha256="")
    ).save(tmp_path / "model")
    return str(tmp_path / "model")


def test_there_and_back(folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, back = str(tmp_path / "w.pt"), str(tmp_path / "back")
    assert main(["convert", folder, plain]) == 0
    assert capsys.readouterr().out == f"{len(UNetModel(CONFIG).state_dict())} tensors of {folder}: {plain}\n"
    process = ("--schedule", "cosine", "--num-timesteps", "100", "--variance", "fixed_large")
    assert main(["convert", plain, back, *TOLD, *process, "--precision", "fp16"]) == 0
    model = load(back)
    assert (model.network.config, model.process_config) == (CONFIG, PROCESS)
    assert {tensor.dtype for tensor in load_file(Path(back) / "model.safetensors").values()} == {torch.float16}


def test_what_is_missing_is_named_as_flags(folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = str(tmp_path / "w.pt")
    assert main(["convert", folder, plain]) == 0
    assert main(["convert", plain, str(tmp_path / "back")]) == 2
    assert capsys.readouterr().err == (
        f"rediffuse: {plain}: the tensors do not determine everything: give --image-size, --attention-order, "
        "--num-heads or --num-head-channels, --schedule\n"
    )


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ((), "exists already; --force replaces it"),
        (("--ema", "0.9", "--force"), "--ema 0.9: {folder} is not a checkpoint of a training run"),
        (("--image-size", "8", "--force"), "has its own configuration"),
    ],
)
def test_a_wrong_call_is_one_line_and_replaces_nothing(
    flags: tuple[str, ...], line: str, folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "w.pt"
    mine.write_bytes(b"mine")
    assert main(["convert", folder, str(mine), *flags]) == 2
    [printed] = capsys.readouterr().err.splitlines()
    assert line.format(folder=folder) in printed
    assert mine.read_bytes() == b"mine"


def test_info_tells_all_of_a_folder(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", folder, "--batch-size", "4"]) == 0
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert rows["kind"] == "unet"
    assert "image_size=8" in rows["network"]
    assert "schedule=cosine" in rows["process"]
    assert rows["names"] == "those of the network"
    assert rows["operations"].endswith("G per call, 4 images")
    assert "unknown" not in rows


def test_conversion_and_info_as_json(folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, num_tensors = str(tmp_path / "w.pt"), len(UNetModel(CONFIG).state_dict())
    assert main(["convert", folder, plain, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"source": folder, "num_tensors": num_tensors, "destination": plain}
    assert main(["info", folder, "--json"]) == 0
    known = json.loads(capsys.readouterr().out)
    assert (known["kind"], known["network"]["image_size"], known["process"]["schedule"]) == ("unet", 8, "cosine")
    assert (known["unknown"], known["difference"], known["cost"]["batch_size"]) == ([], "", 1)
    assert main(["info", plain, "--json"]) == 0
    known = json.loads(capsys.readouterr().out)
    assert (known["process"], known["cost"], known["unknown"][0]) == (None, None, "image_size")


def test_info_numbers_the_classes_that_a_model_was_trained_on(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replace(load(folder), training={"classes": ["cat", "dog"]}).save(tmp_path / "named")
    assert main(["info", str(tmp_path / "named")]) == 0
    assert "classes     0 cat, 1 dog\n" in capsys.readouterr().out


def test_info_tells_what_is_known_of_a_file(folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["convert", folder, str(tmp_path / "w.pt")])
    capsys.readouterr()
    assert main(["info", str(tmp_path / "w.pt")]) == 0
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert "channel_mult=(1, 2)" in rows["network"]
    assert rows["unknown"].startswith("image_size, use_new_attention_order, num_heads or num_head_channels, process")
    assert "operations" not in rows


def test_info_counts_tensors_of_anything_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"fc.weight": torch.zeros(5, 3)}, tmp_path / "w.pt")
    assert main(["info", str(tmp_path / "w.pt")]) == 1
    printed = capsys.readouterr().out
    assert "1, 15 parameters, float32" in printed
    assert "not known: " in printed
