"""`rediffuse convert` of a ResNet-50 in the original DIRE's format: the detector, its report, and what is refused."""

import csv
import io
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import rediffuse
import resnet50
from labelled_images import write_class
from rediffuse.cli.main import main
from rediffuse.detection.detector import load_control, load_detector

FLAGS = ("--model", "default", "--image-size", "32", "--steps", "4", "--device", "cpu")
LIMITS = ("--max-false-alarms", "0.25", "--max-misses", "0.25")
NUM_IMAGES = 8


@dataclass(frozen=True)
class Converted:
    """A file of weights, the images that it was calibrated by, and the result."""

    weights: Path
    state: dict[str, torch.Tensor]
    data: Path
    out: Path
    printed: str


def noisy(image: Image.Image, path: Path) -> None:
    noise = np.random.default_rng(int(path.name)).normal(0, 60, (image.height, image.width, 3))
    Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8)).save(path.with_suffix(".png"))


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Converted]:
    folder = tmp_path_factory.mktemp("dire")
    state = resnet50.random_state(1)  # its output is higher for most of the generated images
    parallel = {f"module.{name}": tensor for name, tensor in state.items()}
    torch.save({"model": parallel, "optimizer": {"state": {}}, "total_steps": 9}, folder / "dire.pth")
    write_class(folder / "data" / "0_real", 0, NUM_IMAGES)
    write_class(folder / "data" / "1_fake" / "adm", 100, NUM_IMAGES, noisy)
    (folder / "data" / "1_fake" / "adm" / "words.png").write_text("no image")
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", printed)
        words = ("convert", folder / "dire.pth", folder / "detector", "--data", folder / "data", *FLAGS, *LIMITS)
        assert main([*map(str, words)]) == 1  # words.png
    yield Converted(folder / "dire.pth", state, folder / "data", folder / "detector", printed.getvalue())
    shutil.rmtree(folder)  # two files of 94 MB


def originals_logit(state: dict[str, torch.Tensor], path: Path) -> float:
    """What the original's detector gives for its 8-bit PNG of the map: 28 of 32 px, as 224 of 256."""
    model = rediffuse.load("default", device="cpu")
    made = rediffuse.reconstruct(
        model, rediffuse.read_image(path, size=32), rediffuse.DireSettings.for_model(model, steps=4)
    )
    error = np.abs((made.x_0 - made.x_0_hat).numpy())[0].transpose(1, 2, 0)
    png = io.BytesIO()
    Image.fromarray((error * 255 / 2).clip(0, 255).astype(np.uint8)).save(png, "PNG")
    pixels = np.asarray(Image.open(png).crop((2, 2, 30, 30)), np.float32) / 255
    normalised = (pixels - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    return resnet50.logits(state, torch.from_numpy(normalised.transpose(2, 0, 1).copy())[None]).item()


def test_detect_gives_the_calibrated_output_of_the_original_for_raw_photographs(
    converted: Converted, clothing: Path, tmp_path: Path
) -> None:
    photos, table = sorted((clothing / "photos").iterdir())[:2], tmp_path / "verdicts.csv"
    words = ("detect", *photos, "--detector", converted.out, "--model", "default", "--device", "cpu", "--out", table)
    assert main([*map(str, words)]) == 0
    calibration = load_detector(converted.out).calibration
    assert calibration.slope > 0
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert len(rows) == 2
    for row, path in zip(rows, photos, strict=True):
        probability = float(row["probability"])
        logit = (math.log(probability / (1 - probability)) - calibration.offset) / calibration.slope
        assert logit == pytest.approx(originals_logit(converted.state, path), abs=0.02)
        assert row["decision"] in ("real", "generated", "unsure")


def test_the_detector_has_the_weights_the_settings_and_the_scores_of_all_images(converted: Converted) -> None:
    detector = load_detector(converted.out)
    tensors = {name.removeprefix("network."): tensor for name, tensor in detector.scorer.tensors().items()}
    assert tensors.keys() == converted.state.keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in converted.state.items())
    model = rediffuse.load("default", device="cpu")
    assert detector.settings == rediffuse.DireSettings.for_model(model, steps=4)
    assert {name: len(scores) for name, scores in detector.left_out.real.items()} == {"real": NUM_IMAGES}
    assert {name: len(scores) for name, scores in detector.left_out.generated.items()} == {"adm": NUM_IMAGES}
    assert (detector.thresholds.max_false_alarms, detector.thresholds.max_misses) == (0.25, 0.25)
    assert detector.training["source"]["name"] == "dire.pth"
    assert (detector.training["network_calls"], detector.training["num_skipped"]) == (8, 1)
    assert np.isfinite(detector.familiarity.limit)
    assert load_control(converted.out) is None


def test_counts_thresholds_decisions_and_auc_are_printed(converted: Converted) -> None:
    lines, thresholds = converted.printed.splitlines(), load_detector(converted.out).thresholds
    assert lines[0] == "real: 8 images in 1 group, yours"
    assert lines[1].startswith(f"  called generated from probability {thresholds.generated:.4f}: at most 25.0% of")
    assert lines[5] == "generated: 8 images in 1 group, yours"
    assert lines[6].startswith(f"  called real below probability {thresholds.real:.4f}: at most 25.0% of")
    assert lines[10].startswith("AUC on these images: ")
    assert lines[11:] == [f"detector: {converted.out}"]


def write_weights(path: Path, value: float = 0.0, num_outputs: int = 1, **changed: tuple[int, ...] | None) -> Path:
    """A file whose tensors have one value, and the right shapes but for those `changed`; None leaves a tensor out."""
    shapes = {**resnet50.shapes(num_outputs), **changed}
    torch.save({"model": {name: torch.full(shape, value) for name, shape in shapes.items() if shape is not None}}, path)
    return path


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_outputs": 1000}, "2 of another shape: fc.weight (1000x2048 instead of 1x2048), fc.bias (1000 instead"),
        ({"conv1.weight": (64, 1, 7, 7)}, "1 of another shape: conv1.weight (64x1x7x7 instead of 64x3x7x7)"),
        ({"bn1.weight": None, "layer5.weight": (1,)}, "1 missing: bn1.weight; 1 unexpected: layer5.weight"),
    ],
)
def test_weights_of_another_network_are_refused_with_their_names(
    changed: dict, message: str, tmp_path: Path, converted: Converted, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, out = write_weights(tmp_path / "w.pth", **changed), tmp_path / "out"
    assert main(["convert", str(weights), str(out), "--data", str(converted.data), *FLAGS, *LIMITS]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"rediffuse: {weights}: does not fit this ResNet50: {message}")
    assert not out.exists()


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (0, "its output is not higher for generated images than for real ones (AUC 0.500)"),
        (-1.0, "the output of the network is nan; the file is damaged"),
    ],
)
def test_a_network_whose_output_says_nothing_is_refused(
    value: float, problem: str, tmp_path: Path, converted: Converted, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, out = write_weights(tmp_path / "w.pth", value), tmp_path / "out"
    assert main(["convert", str(weights), str(out), "--data", str(converted.data), *FLAGS, *LIMITS]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line == f"rediffuse: {weights}: {problem}"
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("", "{out}: exists already; --force replaces it"),
        (
            "--force {limits}",
            "image_size=256: {weights} takes maps of this size; those of the model have 32 px",
        ),
        (
            "--force --image-size 32",
            "max_false_alarms=0.05: needs 19 images of photographs that were left out; there are 8 images in 1 groups: "
            "the smallest limit that holds for the same groups is 0.111",
        ),
        (
            "--force --image-size 32 {limits} --crop windows:2",
            "crop=windows:2: map_8bit is one map per image; center, squash are allowed",
        ),
        ("--force --max-misses 0.5", "max_misses=0.5: more than 0 and less than 0.5 is allowed"),
        ("--force --num-heads 2", "--num-heads 2: has no meaning for a detector (--data)"),
        ("--force --ema 0.9", "--ema 0.9: has no meaning for a detector (--data)"),
    ],
)
def test_a_wrong_call_is_one_line_and_the_detector_stays(
    words: str, line: str, converted: Converted, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (converted.out / "detector.json").read_bytes()
    given = words.format(limits=" ".join(LIMITS)).split()
    flags = ("--data", str(converted.data), "--model", "default", "--device", "cpu")
    assert main(["convert", str(converted.weights), str(converted.out), *flags, *given]) == 2
    [printed] = capsys.readouterr().err.splitlines()
    assert printed.startswith(f"rediffuse: {line.format(out=converted.out, weights=converted.weights)}")
    assert (converted.out / "detector.json").read_bytes() == before


def test_model_and_data_belong_together_and_are_named_where_they_are_missing(
    converted: Converted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, out = str(converted.weights), str(tmp_path / "out")
    for flags, line in (
        ((), f"{weights}: has the tensors of a ResNet-50; --model and --data make a detector of it"),
        (("--model", "default"), "--model default: is only for a detector, which also needs --data"),
        (
            ("--data", str(converted.data)),
            "--model: a detector needs the diffusion model whose maps it was trained on",
        ),
        (
            ("--model", "default", "--data", str(converted.data / "0_real")),
            f"{converted.data / '0_real'}: has no folder of real images (real, 0_real, nature) at any depth; both "
            "classes are needed",
        ),
    ):
        assert main(["convert", weights, out, *flags]) == 2
        assert capsys.readouterr().err == f"rediffuse: {line}\n"
