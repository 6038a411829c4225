"""`rediffuse sample`, `upscale`, `invert` and `interpolate` as they are called."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from processes import torchrun
from rediffuse.cli.main import main
from rediffuse.dire.manifest import read
from rediffuse.images.npz import read_npz, write_npz
from rediffuse.images.tensors import to_uint8
from rediffuse.models.config import Precision
from rediffuse.sampling.config import SamplingSettings
from rediffuse.sampling.sample import sample
from rediffuse.zoo.model import load
from sampling.tiny import classifier, unet, upsampler


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    unet().save(folder / "plain")
    unet(num_classes=3).save(folder / "classes")
    upsampler().save(folder / "upsampler")
    classifier().save(folder / "classifier")
    classifier(image_size=32).save(folder / "larger")
    for run in ("run", "begun"):
        (folder / run).mkdir()
        (folder / run / "config.json").write_text('{"task": "diffusion"}')
    unet().save(folder / "run" / "model")
    torch.save(unet().network.state_dict(), folder / "weights.pt")
    return folder


def call(*words: object, steps: int = 2) -> int:
    return main([*map(str, words), "--device", "cpu", "--steps", str(steps)])


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_second_call_makes_only_what_is_missing(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("sample", "--model", models / "plain", "--out", tmp_path, "--seeds")
    assert call(*words, "0-2") == 0
    assert names(tmp_path / "images") == ["000000.png", "000001.png", "000002.png"]
    (tmp_path / "images" / "000001.png").unlink()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "images").iterdir()}
    capsys.readouterr()
    assert call(*words, "0-3", "--grid") == 0
    assert "2 made, 2 existing" in capsys.readouterr().out
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert pixels(tmp_path / "grid.png").shape == (32, 32, 3)


def test_what_was_made_as_json(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("sample", "--model", models / "plain", "--out", tmp_path, "--seeds", "0-1", "--grid", "--json")
    assert call(*words) == 0
    assert json.loads(capsys.readouterr().out) == {
        "num_made": 2,
        "num_existing": 0,
        "images": str(tmp_path / "images"),
        "grid": str(tmp_path / "grid.png"),
    }
    small = ("upscale", tmp_path / "images", "--model", models / "upsampler", "--out", tmp_path / "large", "--json")
    (tmp_path / "images" / "broken.png").write_bytes(b"none")
    assert call(*small) == 1
    printed = json.loads(capsys.readouterr().out)
    assert (printed["num_made"], len(printed["failures"])) == (2, 1)
    ends = [tmp_path / "images" / f"00000{seed}.png" for seed in (0, 1)]
    assert call("interpolate", *ends, "--out", tmp_path / "way", "--frames", 2, "--json") == 0
    assert json.loads(capsys.readouterr().out)["frames"] == [str(tmp_path / f"way/frames/00{i}.png") for i in (0, 1)]


def test_batches_in_the_original_format_hold_the_images_and_their_classes(models: Path, tmp_path: Path) -> None:
    batch = tmp_path / "batch.npz"
    words = ("sample", "--model", models / "classes", "--out", tmp_path, "--seeds", "0-3", "--class", "1,2")
    assert call(*words, "--npz", batch) == 0
    arr_0, arr_1 = read_npz(batch)
    assert arr_1 is not None
    assert arr_1.tolist() == [1, 2, 1, 2]
    for image, seed, label in zip(arr_0, range(4), arr_1, strict=True):
        np.testing.assert_array_equal(image, pixels(tmp_path / "images" / f"{label:03d}_{seed:06d}.png"))
    assert call(*words, "--npz", batch) == 0  # the same images again


def test_a_batch_of_other_samples_is_not_overwritten(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = tmp_path / "batch.npz"
    batch.write_bytes(b"precious")
    words = ("sample", "--model", models / "plain", "--out", tmp_path, "--seeds", "0", "--npz", batch)
    assert call(*words) == 2
    assert "exists already; --force replaces it" in capsys.readouterr().err
    assert not (tmp_path / "images").exists()
    assert call(*words[:-2]) == 0
    assert call(*words) == 2  # now that none is missing, it is compared
    assert "holds other samples already; --force replaces it" in capsys.readouterr().err
    assert batch.read_bytes() == b"precious"
    assert call(*words, "--force") == 0


def test_other_settings_are_refused_by_name_and_forced_by_removing_the_old(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("sample", "--model", models / "plain", "--out", tmp_path, "--seeds")
    assert call(*words, "0-1") == 0
    other = (*words, "2", "--sampler", "ddpm")
    assert call(*other, steps=3) == 2
    [line] = capsys.readouterr().err.splitlines()[-1:]
    assert "sampler=ddpm (there ddim), steps=3 (there 2); --force replaces its images" in line
    assert names(tmp_path / "images") == ["000000.png", "000001.png"]
    assert call(*other, "--force", steps=3) == 0
    assert names(tmp_path / "images") == ["000002.png"]
    assert json.loads((tmp_path / "settings.json").read_text())["settings"]["sampler"] == "ddpm"


def test_images_in_a_folder_keep_their_precision(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("sample", "--model", models / "plain", "--out", tmp_path, "--seeds")
    for given in ("fp16", "auto"):
        assert call(*words, "0-1", "--precision", given) == 0
        assert json.loads((tmp_path / "settings.json").read_text())["settings"]["precision"] == "fp16"
    assert call(*words, "0-1", "--precision", "fp32") == 2
    assert "precision=fp32 (there fp16)" in capsys.readouterr().err


def test_images_of_a_version_without_precisions_are_in_fp32(models: Path, tmp_path: Path) -> None:
    words = ("sample", "--model", models / "plain", "--out", tmp_path, "--seeds")
    assert call(*words, "0", "--precision", "fp32") == 0
    record = json.loads((tmp_path / "settings.json").read_text())
    del record["settings"]["precision"]
    (tmp_path / "settings.json").write_text(json.dumps(record))
    assert call(*words, "0-1") == 0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_sample_is_that_of_the_library_in_its_precision(precision: Precision, models: Path, tmp_path: Path) -> None:
    words = ("sample", "--model", models / "plain", "--out", tmp_path, "--seeds", 3, "--precision", precision)
    assert call(*words) == 0
    settings = SamplingSettings(steps=2, precision=precision)
    [x_0] = sample(load(models / "plain"), [3], settings)
    np.testing.assert_array_equal(pixels(tmp_path / "images" / "000003.png"), to_uint8(x_0))


def test_images_of_unknown_origin_are_neither_taken_for_samples_nor_removed(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "000000.png").write_bytes(b"precious")
    words = ("sample", "--model", models / "plain", "--out", tmp_path, "--seeds", "0")
    for flags in ((), ("--force",)):
        assert call(*words, *flags) == 2
        assert "holds images/ of unknown origin (no settings.json)" in capsys.readouterr().err
    assert (tmp_path / "images" / "000000.png").read_bytes() == b"precious"


def test_the_model_of_a_run_folder_is_sampled(models: Path, tmp_path: Path) -> None:
    for model in ("plain", "run"):
        assert call("sample", "--model", models / model, "--out", tmp_path / model, "--seeds", "5") == 0
    first, second = (pixels(tmp_path / model / "images" / "000005.png") for model in ("plain", "run"))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(("kind", "suffix"), [("strip", "png"), ("gif", "gif")])
def test_the_way_to_each_image_is_shown(kind: str, suffix: str, models: Path, tmp_path: Path) -> None:
    words = ("sample", "--model", models / "plain", "--out", tmp_path, "--seeds", "5")
    assert call(*words, "--progressive", kind, steps=4) == 0
    assert names(tmp_path / "progressive") == [f"000005.{suffix}"]
    way = pixels(tmp_path / "progressive" / f"000005.{suffix}")
    if kind == "strip":
        assert way.shape == (32, 4 * 16, 3)
        np.testing.assert_array_equal(way[:16, -16:], pixels(tmp_path / "images" / "000005.png"))
    else:
        assert way.shape[:2] == (32, 16)


def test_processes_of_torchrun_share_the_seeds_and_the_last_one_gathers(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("sample", "--model", models / "plain", "--seeds", "0-2", "--out")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, seeds in (("1", ["000001"]), ("0", ["000000", "000001", "000002"])):
        assert not (tmp_path / "shared" / "grid.png").exists()
        monkeypatch.setenv("RANK", rank)
        assert call(*words, tmp_path / "shared", "--grid") == 0
        assert names(tmp_path / "shared" / "images") == [f"{seed}.png" for seed in seeds]
    assert (tmp_path / "shared" / "grid.png").exists()
    assert call(*words, tmp_path / "shared", "--force") == 2
    assert "--force: is only for one process, WORLD_SIZE=2" in capsys.readouterr().err


def test_two_processes_make_together_what_one_makes(models: Path, tmp_path: Path) -> None:
    def words(out: str) -> list[str]:
        flags = shlex.split("--seeds 3-8 --class cycle --steps 3 --sampler ddpm --device cpu --grid --model")
        return [
            "sample",
            *flags,
            str(models / "classes"),
            "--out",
            str(tmp_path / out),
            "--npz",
            str(tmp_path / f"{out}.npz"),
        ]

    assert main(words("one")) == 0
    printed = torchrun("-m", "rediffuse", *words("two"), "--batch-size", "2")
    assert printed.count("3 made, 0 existing") == 2
    assert names(tmp_path / "two") == ["batch_size.json", "grid.png", "images", "settings.json"]
    assert names(tmp_path / "two" / "images") == names(tmp_path / "one" / "images")
    (one, classes), (two, same_classes) = (read_npz(tmp_path / f"{name}.npz") for name in ("one", "two"))
    assert classes is not None
    assert classes.tolist() == [0, 1, 2, 0, 1, 2]
    np.testing.assert_array_equal(same_classes, classes)
    for a, b in ((one, two), (pixels(tmp_path / "one" / "grid.png"), pixels(tmp_path / "two" / "grid.png"))):
        assert np.abs(a.astype(int) - b).max() <= 1  # convolutions round by batch and by threads


def test_a_classifier_guides_by_class(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    guided = ("--classifier", models / "classifier", "--scale", "4")
    words = ("sample", "--seeds", "0-1", "--class", "cycle", "--out")
    for model in ("plain", "classes"):
        assert call(*words, tmp_path / model, "--model", models / model, *guided) == 0
        assert names(tmp_path / model / "images") == ["000_000000.png", "001_000001.png"]
    assert call(*words, tmp_path / "classes", "--model", models / "classes") == 2
    assert "scale=None (there 4.0)" in capsys.readouterr().err


def test_a_preset_changes_samples_and_is_recorded(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("sample", "--model", models / "plain", "--seeds", "0", "--out")
    assert call(*words, tmp_path / "plain") == 0
    assert call(*words, tmp_path / "freeu", "--frequency", "freeu:1.2") == 0
    plain, freeu = (pixels(tmp_path / name / "images" / "000000.png") for name in ("plain", "freeu"))
    assert (plain != freeu).any()
    assert json.loads((tmp_path / "freeu" / "settings.json").read_text())["settings"]["frequency"] == "freeu:1.2"
    assert call(*words, tmp_path / "freeu") == 2
    assert "frequency=trained (there freeu:1.2)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "flags", "line"),
    [
        ("plain", ("--frequency", "blur"), "frequency=blur: trained, off, freeu, sharpen, lowpass and freeu:B are"),
        ("classes", (), "--class is needed: one of 0 to 2, several such as 0-2, or cycle"),
        ("classes", ("--class", "3"), "3 is too large; 0 to 2 are allowed"),
        ("plain", ("--class", "0"), "neither the model nor a classifier has classes"),
        ("plain", ("--scale", "2"), "--scale 2.0: needs --classifier"),
        ("plain", ("--eta", "2"), "eta=2.0: from 0 to 1 is allowed"),
        ("plain", ("--seeds", "5-1"), "5-1 is reversed"),
        ("plain", ("--batch-size", "0"), "batch_size=0: at least 1"),
        ("upsampler", (), "is a superres model; sample takes a unet"),
        (
            "begun",
            (),
            "begun: this training has not written a model yet; `rediffuse convert` makes one from a checkpoint in",
        ),
        ("weights.pt", (), "weights.pt FOLDER` with --image-size, --attention-order, --num-heads or"),
        (
            "plain",
            ("--classifier", "{larger}", "--class", "0"),
            "of image size 32 cannot guide a model of image size 16",
        ),
        ("plain", ("--classifier", "{plain}"), "a diffusion model, not a classifier"),
        ("classifier", (), "a classifier, not a diffusion model"),
    ],
)
def test_a_wrong_call_is_one_line_and_leaves_nothing(
    model: str, flags: tuple[str, ...], line: str, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = [flag.format(larger=models / "larger", plain=models / "plain") for flag in flags]
    assert call("sample", "--model", models / model, "--out", tmp_path / "out", *named) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("rediffuse: ")
    assert line in error
    assert not (tmp_path / "out").exists()


def test_samples_and_images_are_enlarged(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    batch, pictures = tmp_path / "batch.npz", tmp_path / "pictures"
    write_npz(batch, small, small.shape)
    pictures.mkdir()
    Image.fromarray(small[0]).save(pictures / "a.png")
    (pictures / "broken.png").write_bytes(b"no image")
    words = ("--model", models / "upsampler", "--out")
    assert call("upscale", batch, *words, tmp_path / "one") == 0
    assert call("upscale", pictures, *words, tmp_path / "two") == 1
    printed = capsys.readouterr()
    assert "1 made, 1 failed, 0 existing" in printed.out
    assert "broken.png" in printed.err
    # A picture of the model's small size is taken as it is, and its noise is its own: both ways are the same.
    enlarged = pixels(tmp_path / "one" / "images" / "000000.png")
    assert enlarged.shape == (16, 16, 3)
    assert np.abs(enlarged.astype(int) - pixels(tmp_path / "two" / "images" / "a.png.png")).max() <= 1
    np.testing.assert_array_equal(pixels(tmp_path / "two" / "small" / "a.png.png"), small[0])

    Image.fromarray(small[1]).save(pictures / "a.png")  # another image under the same name is enlarged anew
    assert call("upscale", pictures, *words, tmp_path / "two") == 1
    assert call("upscale", pictures, *words, tmp_path / "two") == 1
    printed = capsys.readouterr()
    assert ["1 made" in line for line in printed.out.splitlines()] == [True, False]
    assert printed.err.count("a.png: the result of another image of this name is replaced") == 1


def test_samples_of_another_size_are_not_enlarged(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_npz(tmp_path / "batch.npz", np.zeros((1, 4, 4, 3), np.uint8), (1, 4, 4, 3))
    assert call("upscale", tmp_path / "batch.npz", "--model", models / "upsampler", "--out", tmp_path / "out") == 2
    assert "its images are 4x4 px; this model enlarges 8x8" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_model_that_enlarges_nothing_is_refused(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_npz(tmp_path / "batch.npz", np.zeros((1, 8, 8, 3), np.uint8), (1, 8, 8, 3))
    assert call("upscale", tmp_path / "batch.npz", "--model", models / "plain", "--out", tmp_path / "out") == 2
    assert "plain: is a unet model; upscale takes a superres model" in capsys.readouterr().err


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for seed, path in enumerate(paths):
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 20, 3), dtype=np.uint8)).save(path)
    return paths


def test_inverted_images_leave_latents_and_how_well_they_come_back(
    models: Path, pictures: list[Path], tmp_path: Path
) -> None:
    assert call("invert", *pictures, "--model", models / "plain", "--out", tmp_path / "out") == 0
    assert names(tmp_path / "out" / "latents") == ["a.png.safetensors", "b.png.safetensors"]
    assert all(row.mean_error is not None for row in read(tmp_path / "out"))


def test_interpolation_writes_frames_and_a_strip_between_the_two_images(
    models: Path, pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ("interpolate", *pictures, "--model", models / "plain", "--out", out, "--frames")
    assert call(*words, "4") == 0
    assert len(names(out / "frames")) == 4
    strip = pixels(out / "strip.png")
    assert strip.shape == (16, 6 * 16, 3)
    np.testing.assert_array_equal(strip[:, :16], pixels(pictures[0])[:, 2:18])
    np.testing.assert_array_equal(strip[:, 16:32], pixels(out / "frames" / "000.png"))
    assert call(*words, "2") == 2
    assert "strip.png exists already; --force replaces it" in capsys.readouterr().err
    assert call(*words, "2", "--force") == 0
    assert len(names(out / "frames")) == 2


@pytest.mark.parametrize("form", ["", "--progressive strip", "--progressive gif"])
def test_a_resumed_job_gives_the_same_bytes(models: Path, tmp_path: Path, form: str) -> None:
    words = ("sample", "--model", models / "plain", "--seeds", "0-4", "--batch-size", 2, *form.split(), "--out")
    assert call(*words, tmp_path / "whole", steps=5) == 0
    whole = {path.relative_to(tmp_path / "whole"): path.read_bytes() for path in (tmp_path / "whole").rglob("*.*")}
    for lost in ({0}, {1, 2}, {0, 1, 3, 4}):
        shutil.copytree(tmp_path / "whole", tmp_path / "again")
        for path in (tmp_path / "again").rglob("00000*"):
            if int(path.stem) in lost:
                os.truncate(path, 0 if 0 in lost else 20)  # as from outside; it counts as missing
        assert call(*words, tmp_path / "again", steps=5) == 0
        assert {name: (tmp_path / "again" / name).read_bytes() for name in whole} == whole
        shutil.rmtree(tmp_path / "again")


def test_names_of_any_length_can_be_enlarged(models: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("é" * 120 + "a.png", "é" * 120 + "b.png", "b.png"):
        Image.fromarray(np.full((8, 8, 3), len(name), np.uint8)).save(tmp_path / "in" / name)
    words = ("upscale", tmp_path / "in", "--model", models / "upsampler", "--out", tmp_path / "out")
    assert call(*words) == 0
    assert len(names(tmp_path / "out" / "images")) == 3
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")}
    assert call(*words) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_two_calls_with_other_settings_never_mix(models: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from rediffuse.cli.main import main; import sys; sys.exit(main(sys.argv[1:]))"]
    words = ["sample", "--model", str(models / "plain"), "--out", str(tmp_path), "--seeds", "0-3", "--batch-size", "1"]
    both = [
        subprocess.Popen([*command, *words, "--steps", str(steps)], stderr=subprocess.PIPE, text=True)
        for steps in (4, 5)
    ]
    errors = [process.communicate()[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 2]
    assert "was made with other settings: steps=" in "".join(errors)
    steps = json.loads((tmp_path / "settings.json").read_text())["settings"]["steps"]
    alone = ["sample", "--model", models / "plain", "--out", tmp_path / "alone", "--seeds", "0-3", "--batch-size", 1]
    assert call(*alone, steps=steps) == 0
    for path in (tmp_path / "alone" / "images").iterdir():
        assert (tmp_path / "images" / path.name).read_bytes() == path.read_bytes()
