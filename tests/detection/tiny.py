"""A detector made by hand for a tiny model."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from rediffuse.detection.calibration import Calibration, Thresholds
from rediffuse.detection.detector import Detector
from rediffuse.detection.familiarity import Familiarity
from rediffuse.detection.features import feature_set
from rediffuse.detection.left_out import LeftOut
from rediffuse.detection.scorers import BandScorer
from rediffuse.diffusion.config import ProcessConfig
from rediffuse.dire.settings import DireSettings
from rediffuse.models.config import UNetConfig
from rediffuse.models.unet import UNetModel
from rediffuse.zoo.model import DiffusionModel, Provenance, load

LEFT_OUT = LeftOut(real={"cameras": (0.1, 0.2)}, generated={"flux": (0.8, 0.9)})


def thresholds(real: float, generated: float) -> Thresholds:
    return Thresholds(real=real, generated=generated, max_false_alarms=0.05, max_misses=0.1)


def unsure_detector(model: DiffusionModel, crop: str = "center") -> Detector:
    """A detector that gives `unsure` for every image, after two network calls."""
    settings = DireSettings.for_model(model, steps=4, depth=1, crop=crop)
    features = feature_set("bands", settings)
    count = len(features.features)
    return Detector(
        scorer=BandScorer(
            input=features, mean=np.zeros(count), scale=np.ones(count), weight=np.full(count, 0.01), offset=0.0
        ),
        familiarity=Familiarity(centres=np.zeros((2, count)), precision=np.eye(count)),
        settings=settings,
        calibration=Calibration(slope=1.0, offset=0.0),
        thresholds=thresholds(0.0, 1.0),
        left_out=LEFT_OUT,
        training={},
    )


def save_weights(folder: Path, channel_mult: tuple[int, ...] = (1,)) -> DiffusionModel:
    """Write a model of 16 px and, in detector/, a detector that finds every image unsure; returns the model."""
    torch.manual_seed(0)
    config = UNetConfig(image_size=16, model_channels=32, channel_mult=channel_mult, num_res_blocks=1)
    DiffusionModel(
        network=UNetModel(config),
        process_config=ProcessConfig(variance="fixed_large"),
        provenance=Provenance(source="test", sha256=""),
    ).save(folder)
    model = load(folder)
    unsure_detector(model).save(folder / "detector")
    return model


def save_noise(folder: Path, number: int) -> None:
    """Write images of noise of 16 px: 00.png, 01.png and so on."""
    rng = np.random.default_rng(0)
    for index in range(number):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / f"{index:02}.png")
