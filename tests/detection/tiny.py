"""A detector made by hand for a tiny model."""

import numpy as np

from rediffuse.detection.calibration import Calibration, Thresholds
from rediffuse.detection.detector import Detector
from rediffuse.detection.familiarity import Familiarity
from rediffuse.detection.features import FEATURES
from rediffuse.detection.scorers import BandScorer
from rediffuse.dire.settings import DireSettings
from rediffuse.zoo.model import DiffusionModel


def unsure_detector(model: DiffusionModel) -> Detector:
    """A detector that gives `unsure` for every image, after two network calls."""
    features = FEATURES["bands"]
    count = len(features.features)
    return Detector(
        scorer=BandScorer(
            input=features, mean=np.zeros(count), scale=np.ones(count), weight=np.full(count, 0.01), offset=0.0
        ),
        familiarity=Familiarity(centres=np.zeros((2, count)), precision=np.eye(count)),
        settings=DireSettings.for_model(model, steps=4, depth=1),
        calibration=Calibration(slope=1.0, offset=0.0),
        thresholds=Thresholds(real=0.0, generated=1.0, error_rate=0.05),
        training={},
    )
