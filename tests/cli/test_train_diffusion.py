"""`rediffuse train diffusion`: a recipe, flags over it, a run folder."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from rediffuse.cli.main import main
from rediffuse.files import write_bytes
from rediffuse.images.encode import png_bytes

SMALL = ["--image-size", "8", "--channel-mult", "1", "--attention-resolutions", "1", "--batch-size", "2"]
SMALL_GRID = ["--num-images", "2", "--num-sampling-steps", "2"]


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """A call that trains on six images of noise in two classes."""
    rng = np.random.default_rng(0)
    for index in range(6):
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        write_bytes(tmp_path / "images" / "ab"[index % 2] / f"{index}.png", png_bytes(pixels))
    paths = ["--data", str(tmp_path / "images"), "--out", str(tmp_path / "run")]
    return ["train", "diffusion", *paths, *SMALL, *SMALL_GRID]


def test_trains_with_the_recipe_and_the_flags_over_it(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    call = [*words, "--recipe", "clothing32", "--num-steps", "2", "--class-conditional", "--no-random-flip"]
    monkeypatch.setattr(sys, "argv", ["rediffuse", *call])
    assert main(call) == 0
    assert "trained 2 steps" in capsys.readouterr().out
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["network"]["num_classes"], config["images"]["random_flip"]) == (2, False)
    assert config["process"]["schedule"] == "cosine"
    assert json.loads((tmp_path / "run" / "starts.jsonl").read_text())["command"].startswith(
        "rediffuse train diffusion"
    )
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
    assert main(["info", str(tmp_path / "run")]) == 0
    assert "classes     0 a, 1 b\n" in capsys.readouterr().out


def test_dry_run_prints_config_and_cost_and_writes_nothing(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--recipe=imagenet64", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert '"model_channels": 192' in printed
    for line in ("images               6", "parameters", "operations per step", "memory (estimate)"):
        assert line in printed
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("more", [["--dry-run"], []])
@pytest.mark.parametrize(("flag", "value", "needed"), [("--dims", "1", "2"), ("--in-channels", "1", "3")])
def test_a_network_that_does_not_take_images_is_refused_at_once(
    flag: str, value: str, needed: str, more: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, flag, value, *more]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert f"{flag.removeprefix('--').replace('-', '_')}={value}: {needed} is needed: images have two" in line


def test_estimate_and_training_as_json(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--dry-run", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["config"]["network"]["image_size"], printed["num_images"]) == (8, 6)
    assert printed["cost"]["num_trained"] == printed["cost"]["num_parameters"] > 0
    assert main([*words, "--num-steps", "1", "--json", "-v"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {
        "num_steps": 1,
        "run": str(tmp_path / "run"),
        "model": str(tmp_path / "run" / "model"),
    }
    assert "rediffuse.training.loop: step 1: loss " in shown.err


def test_unknown_recipe_is_named(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--recipe", "clothing23"]) == 2
    assert (
        "--recipe clothing23: clothing32, windows32, clothing64, imagenet64 are allowed; did you mean clothing32?"
        in capsys.readouterr().err
    )


def test_classes_are_needed_where_asked_for(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flat = [*words, "--data", str(tmp_path / "images" / "a"), "--class-conditional"]
    assert main(flat) == 2
    assert "has no classes" in capsys.readouterr().err


def test_missing_folder_is_one_line(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--data", str(tmp_path / "nowhere")]) == 2
    assert "nowhere: does not exist" in capsys.readouterr().err
