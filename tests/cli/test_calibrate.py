"""`rediffuse calibrate` with a tiny model and a detector made by hand: what is printed, written and refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detection.tiny import unsure_detector
from rediffuse.cli.main import main
from rediffuse.detection.detector import load_control, load_detector, save_with_control
from rediffuse.detection.left_out import LeftOut
from rediffuse.zoo.model import load
from sampling.tiny import unet


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and, in detector/, a detector with a control."""
    folder = tmp_path_factory.mktemp("weights")
    unet().save(folder)
    left_out = LeftOut(real={"cameras": (0.1, 0.2)}, generated={"flux": tuple(np.linspace(0.4, 0.9, 40).tolist())})
    detector = replace(unsure_detector(load(folder)), left_out=left_out)
    save_with_control(folder / "detector", detector, replace(detector, training={"name": "control"}))
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """21 images; three of them in a subfolder."""
    random = np.random.default_rng(0)
    for number in range(21):
        path = tmp_path / "photos" / ("phone" if number < 3 else "") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (16, 16, 3), np.uint8)).save(path)
    return tmp_path / "photos"


def calibrate(weights: Path, *words: Path | str) -> int:
    flags = ["--model", weights, "--detector", weights, "--device", "cpu"]
    return main(["calibrate", *map(str, (*words, *flags))])


def test_each_class_is_reported_and_the_detector_is_written_with_its_control(
    weights: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "mine"
    assert calibrate(weights, "--real", photos, "--out", out) == 0
    lines = capsys.readouterr().out.splitlines()
    made, control = load_detector(out), load_control(out)
    thresholds = made.thresholds
    assert lines[:2] == [
        "real: 21 images in 2 groups, yours",
        f"  called generated from probability {thresholds.generated:.4f}: at most 5.0% of further images of the same "
        "groups",
    ]
    assert lines[2].startswith("  generated  0.0% [0.0%, 16.1%]")
    assert [line.split()[0] for line in lines[3:5]] == ["unsure", "real"]
    assert lines[5:] == [
        "generated: 40 images in 1 group, left out in the training of the detector",
        f"  called real below probability {thresholds.real:.4f}: at most 5.0% of further images of the same groups",
        f"detector: {out}",
    ]
    assert (thresholds.max_false_alarms, thresholds.max_misses) == (0.05, 0.05)
    assert made.training["calibrated"] == {"real": {"images": 21, "groups": 2}, "num_skipped": 0}
    assert control is not None
    assert control.training == {"name": "control"}
    names = ("detector.json", "detector.safetensors")
    assert all(
        (out / "control" / name).read_bytes() == (weights / "detector/control" / name).read_bytes() for name in names
    )
    assert main(["detect", str(photos), "--model", str(weights), "--detector", str(out), "--device", "cpu"]) == 0


def test_the_record_has_what_is_printed_and_a_bad_file_is_a_warning(
    weights: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "words.png").write_text("no image")
    out = tmp_path / "mine"
    words = ("--real", photos, "--generated", photos / "phone", "--max-misses", "0.3", "--out", out, "--json")
    assert calibrate(weights, *words) == 2  # the same files in both
    assert "is in folders of both classes" in capsys.readouterr().err
    (photos / "phone").rename(tmp_path / "fakes")
    words = ("--real", photos, "--generated", tmp_path / "fakes", "--max-misses", "0.3", "--max-false-alarms", "0.1")
    assert calibrate(weights, *words, "--out", out, "--json") == 1
    printed = capsys.readouterr()
    assert printed.err.startswith(f"rediffuse: warning: skipped: {photos}/words.png: is not an image")
    record = json.loads(printed.out)
    assert [(one["label"], one["num_images"], one["is_own"]) for one in record["classes"]] == [
        ("real", 18, True),
        ("generated", 3, True),
    ]
    assert record["classes"][0]["decisions"]["generated"].keys() == record["auc"].keys() == {"value", "low", "high"}
    assert record["thresholds"]["max_misses"] == 0.3
    assert (len(record["skipped"]), record["detector"]) == (1, str(out))


def test_a_detector_is_replaced_only_with_force_and_other_folders_never(
    weights: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine"
    words = ("--real", photos, "--out", out)
    assert calibrate(weights, *words) == 0
    assert calibrate(weights, *words, "--max-false-alarms", "0.2") == 2
    assert capsys.readouterr().err == f"rediffuse: --out {out}: already exists; --force replaces it\n"
    assert calibrate(weights, *words, "--max-false-alarms", "0.2", "--force") == 0
    assert load_detector(out).thresholds.max_false_alarms == 0.2
    assert calibrate(weights, "--real", photos, "--out", photos, "--force") == 2
    assert f"{photos}: holds 10.png, which is no part of a detector" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--out x", "--real DIR ... is required; see `rediffuse calibrate --help`"),
        ("--out x --real", "--real: at least one folder is needed"),
        ("--real {photos}", "--out DIR is required; see `rediffuse calibrate --help`"),
        ("--out x --real {photos}/a", "{photos}/a: is not a folder; folders of real images are needed"),
        (
            "--out x --real {photos}/phone",
            "max_false_alarms=0.05: needs 19 images of photographs that were left out; there are 3 images in 1 groups: "
            "the smallest limit that holds for the same groups is 0.25",
        ),
        ("--out x --real {photos} --max-misses 1", "max_misses=1.0: more than 0 and less than 0.5 is allowed"),
        ("--out x --real {photos} --batch-size 0", "batch_size=0: at least 1 is needed"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(
    words: str, line: str, weights: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate(weights, *words.format(photos=photos).split()) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", f"rediffuse: {line.format(photos=photos)}\n")
    assert not Path("x").exists()
