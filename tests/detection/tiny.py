"""A detector made by hand for a tiny model."""

import numpy as np

from rediffuse.detection.calibration import Calibration, Thresholds
from rediffuse.detection.detector import Detector
from rediffuse.detection.familiarity import Familiarity
from rediffuse.detection.features import feature_set
from rediffuse.detection.left_out import LeftOut
from rediffuse.detection.scorers import BandScorer
from rediffuse.dire.settings import DireSettings
from rediffuse.zoo.model import DiffusionModel

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
