"""`rediffuse dire` as it is called: on real files, killed, run again, and called wrongly."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image

from dire.test_shards import members, results, shard_of
from golden_values import fill
from rediffuse.cli.main import main
from rediffuse.diffusion.config import ProcessConfig
from rediffuse.dire.manifest import read
from rediffuse.dire.maps import MapStore
from rediffuse.images.windows import textured_windows
from rediffuse.models.config import UNetConfig
from rediffuse.models.unet import UNetModel
from rediffuse.stores import folder_of
from rediffuse.zoo.model import DiffusionModel, Provenance
from s3_server import serve_s3


def save_model(folder: Path, num_classes: int | None = None) -> str:
    config = UNetConfig(
        image_size=16, model_channels=32, num_res_blocks=1, channel_mult=(1, 1), num_classes=num_classes
    )
    DiffusionModel(
        network=fill(UNetModel(config)),
        process_config=ProcessConfig(variance="fixed_large"),
        provenance=Provenance(source="test", sha256=""),
    ).save(folder)
    return str(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(8):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    return folder


def call(pictures: Path, out: Path, model: str, *flags: str) -> int:
    return main(["dire", str(pictures), "--out", str(out), "--model", model, "--device", "cpu", *flags])


def state(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*.p*") if path.is_file()}


def kill_with_a_first_row(words: list[str], out: Path) -> int:
    """Start a command, kill it when it has recorded results, and return their number."""
    run = subprocess.Popen([sys.executable, "-m", "rediffuse", *words], stderr=subprocess.DEVNULL)
    while run.poll() is None and not read(out):
        time.sleep(0.005)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    return len(read(out))


def test_killed_run_is_taken_up_where_it_was_and_a_third_does_nothing(
    pictures: Path, tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out, flags = tmp_path / "out", ("--batch-size", "1", "--steps", "20")
    words = ["dire", str(pictures), "--out", str(out), "--model", model, "--device", "cpu", *flags]
    done = kill_with_a_first_row(words, out)
    (out / "maps" / ".0.png.png.0c3f81ab.png").write_bytes(b"half written")
    assert 1 <= done < 8

    assert call(pictures, out, model, *flags) == 0
    assert f"{8 - done} done, 0 failed, {done} done before" in capsys.readouterr().out
    assert not list(out.rglob(".*.png"))
    before = state(out)
    assert len(before) == 2 * 8 + 1  # two images of each map, and the manifest

    assert call(pictures, out, model, *flags) == 0
    assert "0 done, 0 failed, 8 done before" in capsys.readouterr().out
    assert state(out) == before


def test_a_run_that_is_killed_while_it_fills_a_shard_loses_and_repeats_nothing(
    pictures: Path, tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out, flags = tmp_path / "out", ("--batch-size", "1", "--steps", "10", "--store", "shards")
    words = ["dire", str(pictures), "--out", str(out), "--model", model, "--device", "cpu", *flags]
    done = kill_with_a_first_row(words, out)
    with shard_of(out).open("ab") as shard:
        shard.write(shard_of(out).read_bytes()[:700])  # the beginning of a next image
    assert 1 <= done < 8
    places = {row.name: row.place for row in read(out)}

    assert call(pictures, out, model, *flags) == 0
    assert f"{8 - done} done, 0 failed, {done} done before" in capsys.readouterr().out
    assert call(pictures, tmp_path / "files", model, *flags[:4]) == 0
    assert members(out) == results(tmp_path / "files")
    assert {row.name: row.place for row in read(out) if row.name in places} == places  # not computed again
    assert call(pictures, out, model, *flags) == 0
    assert "0 done, 0 failed, 8 done before" in capsys.readouterr().out
    assert call(pictures, out, model, *flags[:4]) == 2
    assert "--store files: " in capsys.readouterr().err
    assert main([*words[:3], "memory://x", *words[4:]]) == 2
    assert "is in a store; a folder on a disk is needed" in capsys.readouterr().err


def test_windows_are_kept_with_their_places_and_done_once(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures, out, flags = tmp_path / "pictures", tmp_path / "out", ("--steps", "2", "--crop", "windows:3")
    pictures.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    for name, part in {"a.png": pixels, "b.png": pixels[:20, :20], "c.png": pixels[:15]}.items():
        Image.fromarray(part).save(pictures / name)
    assert call(pictures, out, model, *flags) == 1
    printed = capsys.readouterr()
    assert "2 done, 1 failed, 0 done before" in printed.out
    assert printed.err.splitlines()[-1].endswith("c.png: 90x15 pixels, smaller than a window of 16x16")
    places = " ".join(f"{window.top},{window.left}" for window in textured_windows(pixels, 16, 3))
    assert {row.name: row.windows for row in read(out)} == {"a.png": places, "b.png": "0,0", "c.png": None}
    store = MapStore.open(out)
    assert [len(store.read(name).values) for name in ("a.png", "b.png")] == [3, 1]
    assert call(pictures, out, model, *flags) == 1
    assert "0 done, 1 failed, 2 done before" in capsys.readouterr().out


def test_failed_file_is_named_and_the_others_are_done(
    pictures: Path, tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "broken.png").write_bytes((pictures / "0.png").read_bytes()[:100])
    assert call(pictures, tmp_path / "out", model, "--steps", "2", "--save", "maps,reconstructions,latents") == 1
    printed = capsys.readouterr()
    assert "8 done, 1 failed, 0 done before" in printed.out
    [line] = [line for line in printed.err.splitlines() if line.startswith("rediffuse:")]
    assert "broken.png" in line
    for folder in ("maps", "maps_8bit", "reconstructions", "latents"):
        assert len(list((tmp_path / "out" / folder).iterdir())) == 8


def test_force_does_everything_again(
    pictures: Path, tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for flags in ((), ("--force",)):
        assert call(pictures, tmp_path / "out", model, "--steps", "2", *flags) == 0
        assert "8 done, 0 failed, 0 done before" in capsys.readouterr().out


def test_class_conditional_model_needs_a_class_and_takes_a_labels_file(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = save_model(tmp_path / "model", num_classes=2), tmp_path / "out"
    assert call(pictures, out, model) == 2
    assert "0.png: no class is given; this class-conditional model needs a class" in capsys.readouterr().err
    assert call(pictures, out, model, "--class", "2") == 2
    assert not out.exists()
    labels = tmp_path / "labels.csv"
    labels.write_text("path,label\n" + "".join(f"{index}.png,{index % 2}\n" for index in range(8)))
    assert call(pictures, out, model, "--labels", str(labels), "--steps", "2") == 0
    assert [row.label for row in read(out)] == [0, 1] * 4


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--save", "maps,latent"), "'latent' is not one of maps, reconstructions, latents; did you mean latents?"),
        (("--class", "1", "--labels", "x.csv"), "only one of them"),
        (("--class", "1"), "not class-conditional"),
        (("--steps", "600"), "ddim600"),
        (("--depth", "21"), "depth=21: from 1 to steps=20 are allowed"),
        (("--batch-size", "0"), "batch_size=0: at least 1 is needed"),
        (("--model", "nowhere"), "nowhere"),
        (("--crop", "windows:0"), "crop=windows:0: N of windows:N is a whole number, at least 1"),
        (("--crop", "windows:x"), "crop=windows:x: N of windows:N is a whole number, at least 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_call_is_one_line_and_leaves_nothing(
    flags: tuple[str, ...], line: str, pictures: Path, tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(pictures, tmp_path / "out", model, *flags) == 2
    [printed] = capsys.readouterr().err.splitlines()
    assert printed.startswith("rediffuse: ")
    assert line in printed
    assert not (tmp_path / "out" / "settings.json").exists()


def test_other_settings_in_the_same_folder_are_refused(
    pictures: Path, tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(pictures, tmp_path / "out", model, "--steps", "2") == 0
    assert call(pictures, tmp_path / "out", model, "--steps", "4") == 2
    assert "has other settings: steps=4 (there 2)" in capsys.readouterr().err


def test_a_preset_changes_maps_and_is_recorded(
    pictures: Path, tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ("--steps", "2", "--format", "safetensors")
    assert call(pictures, tmp_path / "plain", model, *quick) == 0
    assert call(pictures, tmp_path / "lowpass", model, *quick, "--frequency", "lowpass") == 0
    plain, lowpass = (MapStore.open(tmp_path / name) for name in ("plain", "lowpass"))
    assert lowpass.settings.frequency == "lowpass"
    assert not torch.allclose(plain.read("0.png").values, lowpass.read("0.png").values, atol=1e-3)
    assert call(pictures, tmp_path / "plain", model, *quick, "--frequency", "lowpass") == 2
    assert "frequency=lowpass (there trained)" in capsys.readouterr().err
    assert call(pictures, tmp_path / "none", model, "--frequency", "lowpas") == 2
    assert "frequency=lowpas: trained, off, freeu, sharpen, lowpass and freeu:B" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("kind", ["memory", "s3"])
def test_results_in_a_store_are_whole_and_taken_up(
    kind: str,
    pictures: Path,
    tmp_path: Path,
    model: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "cache"))
    with serve_s3("maps") if kind == "s3" else contextlib.nullcontext():
        out = "s3://maps/out" if kind == "s3" else f"memory:///{tmp_path.name}/out"
        (pictures / "sub").mkdir()
        (pictures / "sub" / "broken.png").write_bytes(b"no image")
        words = ["dire", str(pictures), "--out", out, "--model", model, "--device", "cpu", "--steps", "2"]
        assert main(words) == 1
        assert f"8 done, 1 failed, 0 done before: {out}" in capsys.readouterr().out
        store, path = fsspec.url_to_fs(out)
        kept = sorted(name.partition("/out/")[2] for name in store.find(path))
        assert kept[:2] == ["manifest.parquet", "maps/0.png.png"]
        assert len(kept) == 2 * 8 + 2
        assert MapStore.open(folder_of(out)).read("0.png").values.shape == (1, 3, 16, 16)
        store.rm_file(f"{path}/maps/3.png.png")
        assert main(words) == 1
        assert "1 done, 1 failed, 7 done before" in capsys.readouterr().out
        assert sorted(name.partition("/out/")[2] for name in store.find(path)) == kept
        assert main([*words[:-1], "4"]) == 2
        assert f"{out} has other settings: steps=4 (there 2)" in capsys.readouterr().err
    assert not list((tmp_path / "cache").rglob("*.sqlite"))
