"""The commands of docs/models.md, with small pipelines in the place of the large ones."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image

import pipelines
import rediffuse.dire.manifest
from hub_server import serve_hub
from labelled_images import write_class, write_data
from lpips_weights import write_lpips
from rediffuse.cli.main import main

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
COMMANDS = re.findall(r"^rediffuse (.+)$", PAGE.read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The folders that take the places of models on the hub."""
    folder = tmp_path_factory.mktemp("models")
    made = {
        "google/ddpm-cat-256": pipelines.pixel(),
        "stable-diffusion-v1-5/stable-diffusion-v1-5": pipelines.stable_diffusion(),
        "stabilityai/stable-diffusion-xl-base-1.0": pipelines.sdxl(),
        "stabilityai/stable-diffusion-3-medium-diffusers": pipelines.sd3(),
        "black-forest-labs/FLUX.1-dev": pipelines.flux(),
        "stabilityai/sd-vae-ft-mse": pipelines.autoencoder(),
        "stabilityai/sdxl-vae": pipelines.autoencoder(scaling_factor=0.13),
        "CompVis/stable-diffusion-v1-1/vae": pipelines.autoencoder(),
        "stabilityai/stable-diffusion-2-base/vae": pipelines.autoencoder(),
        "kandinsky-community/kandinsky-2-1/movq": pipelines.quantised(norm_type="spatial", block_out_channels=(32, 32)),
    }
    for name, saved in made.items():
        saved.save_pretrained(folder / name)
    (folder / "weights").mkdir()
    write_lpips(folder / "weights")
    return {name: str(folder / name) for name in made} | {"lpips:weights": f"lpips:{folder / 'weights'}"}


@pytest.fixture
def run(models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], int]:
    """Run a command of the page in a new folder with photographs and labelled images."""
    monkeypatch.chdir(tmp_path)

    def run(command: str) -> int:
        for name, folder in models.items():
            command = re.sub(rf"(?<![/\w]){re.escape(name)}(?![-\w])", folder, command)
        return main(shlex.split(command))

    return run


@pytest.mark.parametrize("command", [command for command in COMMANDS if "detector" not in command])
def test_the_commands_of_the_page_run(command: str, run: Callable[[str], int]) -> None:
    write_class(Path("photos"), 2000, 1)
    assert run(command) == 0


def test_the_prompt_of_a_command_is_recorded(run: Callable[[str], int]) -> None:
    write_class(Path("photos"), 2000, 1)
    [command] = [command for command in COMMANDS if command.startswith("invert")]
    assert run(command) == 0
    settings = json.loads(Path("latents/sd15/settings.json").read_text())
    assert (settings["prompt"], settings["guidance_scale"], settings["grid"]) == ("a face", 1.0, "aligned")
    [latent] = Path("latents/sd15/latents").iterdir()
    assert safetensors.torch.load_file(latent)["x_T"].shape == (4, 8, 8)


def test_the_distance_of_aeroblade_is_in_the_manifest(run: Callable[[str], int]) -> None:
    write_class(Path("photos"), 2000, 1)
    [command] = [command for command in COMMANDS if "lpips" in command]
    assert run(command) == 0
    [row] = rediffuse.dire.manifest.read(Path("maps/aeroblade"))
    assert row.lpips is not None
    assert row.lpips > 0


def test_a_detector_is_trained_calibrated_and_used(
    run: Callable[[str], int], capsys: pytest.CaptureFixture[str]
) -> None:
    write_data(Path("data"), 24)
    write_class(Path("photos"), 2000, 25)
    commands = [command for command in COMMANDS if "detector" in command]
    assert [command.split()[0] for command in commands] == ["train", "calibrate", "detect"]
    for command in commands:
        assert run(command) == 0, command
    record = json.loads(Path("runs/calibrated/detector.json").read_text())
    assert record["settings"]["solver"] == "autoencoder"
    assert record["settings"]["model_parts"].keys() == {"vae"}
    assert record["training"]["model"]["parts"].keys() == {"vae"}


def test_a_detector_is_trained_on_lpips_and_used(run: Callable[[str], int]) -> None:
    write_data(Path("data"), 10)
    write_class(Path("photos"), 2000, 2)
    model = "--solver autoencoder --model stabilityai/sd-vae-ft-mse,lpips:weights"
    assert run(f"train detector --data data {model} --features lpips --inverse-penalties 1 --out runs/lpips") == 0
    detector = json.loads(Path("runs/lpips/detector/detector.json").read_text())
    assert (detector["input"], detector["settings"]["model_parts"].keys() >= {"lpips"}) == ("lpips", True)
    detect = "detect photos --detector runs/lpips --model stabilityai/sd-vae-ft-mse"
    assert run(f"{detect},lpips:weights --report page.html --out verdicts.csv") == 0
    assert len(Path("verdicts.csv").read_text().splitlines()) == 3
    assert run(f"{detect} --out other.csv") == 2  # another model, without LPIPS


def test_images_on_which_an_autoencoder_overflows_are_one_line_each_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = pipelines.autoencoder()
    torch.nn.init.constant_(network.encoder.conv_in.weight, 5e19)  # far beyond float16, and for noise beyond float32
    network.save_pretrained(tmp_path / "vae")
    for name, size in {"a": (19, 17), "c": (31, 16)}.items():  # sides that the factor, 2, does not divide
        Image.new("RGB", size, (127, 127, 128)).save(tmp_path / f"{name}.png")
    Image.effect_noise((16, 16), 100).convert("RGB").save(tmp_path / "b.png")
    words = ["dire", *(str(tmp_path / f"{name}.png") for name in "abc"), "--model", str(tmp_path / "vae")]
    words += ["--solver", "autoencoder", "--precision", "fp16", "--out", str(tmp_path / "out")]
    assert main(words) == 1
    printed = capsys.readouterr()
    assert "2 done, 1 failed" in printed.out
    [line] = printed.err.splitlines()
    assert line.endswith("b.png: the reconstruction is not finite: the autoencoder diverges on this image")


def test_info_lists_parts_process_and_cost(models: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", models["stable-diffusion-v1-5/stable-diffusion-v1-5"], "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["parts"].keys() == {"scheduler", "text_encoder", "tokenizer", "unet", "vae"}
    assert record["process"]["scheduler"] == "DDIMScheduler"
    assert record["network"]["in_channels"] == 4
    assert record["cost"]["operations"] > 1e6


def test_a_pipeline_of_the_hub_needs_the_network_once_and_draws_no_bars_into_a_file(
    models: dict[str, str], tmp_path: Path
) -> None:
    folder = Path(models["google/ddpm-cat-256"])
    command = [sys.executable, "-m", "rediffuse", "info", "owner/name", "--json"]
    environment = os.environ | {"HF_HOME": str(tmp_path / "cache")}
    with serve_hub() as hub:
        hub.commits.append({str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")})
        online = environment | {"HF_ENDPOINT": hub.url}
        fetched = subprocess.run(command, env=online, capture_output=True, text=True, check=True)
        hub.commits.append({"config.json": b'{"model_type": "bert"}', "model.safetensors": b"large"})
        other = subprocess.run(command, env=online, capture_output=True, text=True, check=False)
    assert fetched.stderr == ""
    assert (other.returncode, len(other.stderr.splitlines())) == (2, 1)
    assert "is no model of rediffuse" in other.stderr
    assert not [*(tmp_path / "cache").rglob("model.safetensors")]
    command[4] += f"@{0:040x}"
    offline = environment | {"HF_ENDPOINT": "http://127.0.0.1:1"}
    again = subprocess.run(command, env=offline, capture_output=True, text=True, check=True)
    assert json.loads(again.stdout)["parts"] == json.loads(fetched.stdout)["parts"]


def test_info_of_an_autoencoder_alone_has_no_process(
    models: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", models["stabilityai/sd-vae-ft-mse"], "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["parts"].keys() == {"vae"}
    assert (record["process"], record["cost"]) == (None, None)


def test_a_prompt_for_a_model_without_prompts_is_one_line(
    models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    words = [str(tmp_path), "--model", models["google/ddpm-cat-256"], "--out", str(tmp_path / "out"), "--prompt", "x"]
    assert main(["dire", *words]) == 2
    assert capsys.readouterr().err.strip() == "rediffuse: prompt=x: this model has no prompts"
