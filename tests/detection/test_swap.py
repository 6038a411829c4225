"""The swap test, with a tiny untrained model and a detector made by hand, on classes that differ by their grain."""

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
        for seed in range(12):
            pixels = np.asarray(picture(100 * label + seed, SIZE, SIZE)) + rng.normal(0, 2 + 8 * label, (SIZE, SIZE, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name / f"{seed}.png")
    (folder / "real" / "words.png").write_text("no image")
    return [(image.found, image.label) for image in audit_folder(folder)]


def test_the_auc_moves_as_that_of_verdicts_on_encoded_files_does(
    model: DiffusionModel, images: list[tuple[FoundImage, int]], tmp_path: Path
) -> None:
    detector = unsure_detector(model)
    test = swap_test(model, detector, images, quality=20)
    files, labels = [], []
    for found, label in images:
        if not found.name.endswith("words.png"):
            path = found.path
            if label == 1:
                path = tmp_path / f"{found.path.stem}.png"
                Image.fromarray(degrade.jpeg(np.array(Image.open(found.path)), 20)).save(path)
            files.append(FoundImage(path, found.name))
            labels.append(label)
    probabilities = np.array([verdict.probability for verdict in judge(model, files, detector)])
    assert (test.num_real, test.num_generated) == (12, 12)
    encoded = test.unchanged.value + test.generated.value
    assert encoded == pytest.approx(roc_auc(np.array(labels), probabilities), abs=0.01)
    assert test.generated.low <= test.generated.value <= test.generated.high


def test_a_class_that_cannot_be_judged_is_named(model: DiffusionModel, images: list[tuple[FoundImage, int]]) -> None:
    real = [(found, label) for found, label in images if label == 0]
    with pytest.raises(InputError, match="both classes"):
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
