"""The swap test, with a tiny untrained model and a detector made by hand, on classes that differ by their grain."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detection.tiny import unsure_detector
from labelled_images import picture
from rediffuse.detection.audit import AuditReport, audit_folder
from rediffuse.detection.judge import judge
from rediffuse.detection.metrics import Interval, roc_auc
from rediffuse.detection.swap import SwapTest, swap_test
from rediffuse.diffusion.config import ProcessConfig
from rediffuse.errors import InputError
from rediffuse.images import degrade
from rediffuse.images.find import FoundImage
from rediffuse.models.config import UNetConfig
from rediffuse.models.unet import UNetModel
from rediffuse.zoo.model import DiffusionModel, Provenance

SIZE = 16


@pytest.fixture(scope="module")
def model() -> DiffusionModel:
    torch.manual_seed(0)
    config = UNetConfig(image_size=SIZE, model_channels=32, channel_mult=(1,), num_res_blocks=1)
    process = ProcessConfig(variance="fixed_large")
    return DiffusionModel(
        network=UNetModel(config).eval(), process_config=process, provenance=Provenance(source="test", sha256="")
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[FoundImage, int]]:
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for label, name in enumerate(("real", "generated")):
        (folder / name).mkdir()
        for seed in range(8 - label):
            pixels = np.asarray(picture(100 * label + seed, SIZE, SIZE)) + rng.normal(0, 2 + label, (SIZE, SIZE, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name / f"{seed}.png")
    (folder / "real" / "words.png").write_text("no image")
    return [(image.found, image.label) for image in audit_folder(folder)]


def test_the_auc_moves_as_that_of_verdicts_on_encoded_files_does(
    model: DiffusionModel, images: list[tuple[FoundImage, int]], tmp_path: Path
) -> None:
    detector = unsure_detector(model)
    seen: list[tuple[str, int, int]] = []
    test = swap_test(model, detector, images, quality=20, progress=lambda *done: seen.append(done[:3]))
    assert (test.num_real, test.num_generated, test.quality) == (8, 7, 20)
    assert seen[0] == ("swap test: as they are", 0, 16)
    assert seen[-1] == ("swap test: JPEG 20", 15, 15)
    usable = [(found, label) for found, label in images if not found.name.endswith("words.png")]
    labels = np.array([label for _, label in usable])
    encoded = []
    for place, (found, _) in enumerate(usable):
        Image.fromarray(degrade.jpeg(np.array(Image.open(found.path)), 20)).save(tmp_path / f"{place}.png")
        encoded.append(FoundImage(tmp_path / f"{place}.png", found.name))
    before, after = (
        np.array([verdict.probability for verdict in judge(model, files, detector)])
        for files in ([found for found, _ in usable], encoded)
    )
    assert test.unchanged.value == pytest.approx(roc_auc(labels, before), abs=0.01)
    for label, moved in enumerate((test.real, test.generated)):
        expected = roc_auc(labels, np.where(labels == label, after, before)) - roc_auc(labels, before)
        assert moved.value == pytest.approx(expected, abs=0.01)
        assert moved.low < moved.value < moved.high


def test_a_file_that_disappears_meanwhile_is_left_out(
    model: DiffusionModel, images: list[tuple[FoundImage, int]], tmp_path: Path
) -> None:
    copies = [
        (replace(found, path=Path(shutil.copy(found.path, tmp_path / f"{place}.png"))), label)
        for place, (found, label) in enumerate(images)
    ]

    def remove_first(what: str, done: int, total: int, note: str = "") -> None:
        if (what, done) == ("swap test: as they are", total):
            copies[0][0].path.unlink()

    test = swap_test(model, unsure_detector(model), copies, progress=remove_first)
    assert (test.num_real, test.num_generated, test.quality) == (7, 7, 75)


def test_a_test_in_words() -> None:
    unchanged, real, generated = (
        Interval(value=value, low=value - 0.1, high=value + 0.05) for value in (0.8, 0.02, -0.3)
    )
    test = SwapTest(num_real=50, num_generated=50, quality=75, unchanged=unchanged, real=real, generated=generated)
    assert str(test) == (
        "AUC 0.800 [0.700, 0.850]; change with only the real images as JPEG 75: +0.020 [-0.080, +0.070], with only the "
        "generated ones: -0.300 [-0.400, -0.250]"
    )


def test_a_class_that_cannot_be_judged_is_named(model: DiffusionModel, images: list[tuple[FoundImage, int]]) -> None:
    real = [(found, label) for found, label in images if label == 0]
    with pytest.raises(InputError, match=r"^the swap test needs images of both classes that can be judged$"):
        swap_test(model, unsure_detector(model), real)


@pytest.mark.parametrize(
    ("real", "generated", "moves"),
    [
        ((0.0, -0.03, 0.03), (-0.01, -0.02, 0.0), False),
        ((0.0, -0.03, 0.03), (-0.1, -0.15, -0.05), True),
        ((0.1, 0.05, 0.15), (0.0, -0.03, 0.03), True),
    ],
)
def test_a_change_of_the_auc_beyond_chance_is_a_problem(
    real: tuple[float, ...], generated: tuple[float, ...], moves: bool
) -> None:
    unchanged, *moved = (
        Interval(value=value, low=low, high=high) for value, low, high in ((0.8, 0.7, 0.9), real, generated)
    )
    test = SwapTest(num_real=50, num_generated=50, quality=75, unchanged=unchanged, real=moved[0], generated=moved[1])
    assert test.moves is moves
    report = AuditReport(num_real=50, num_generated=50, num_found=100, num_examined=100, swap=test)
    assert any("the detector responds to how files are encoded" in problem for problem in report.problems) is moves
