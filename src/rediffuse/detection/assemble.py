"""Make a detector of a classifier, by its results for images that it was not fitted on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rediffuse.detection.calibration import Calibration, Thresholds, fit_calibration
from rediffuse.detection.config import Limits
from rediffuse.detection.detector import Detector
from rediffuse.detection.familiarity import Familiarity
from rediffuse.detection.labelled import CLASSES, LabelledImage, left_out_scores
from rediffuse.detection.left_out import LeftOut, by_group, first_error
from rediffuse.detection.metrics import expected_calibration_error
from rediffuse.detection.scorers import Scorer
from rediffuse.dire.settings import DireSettings

UNCALIBRATED = Calibration(slope=1, offset=0)


@dataclass(frozen=True, kw_only=True)
class LeftOutResults:
    """The results for N images of both classes that were left out of the fits."""

    images: Sequence[LabelledImage]
    logits: np.ndarray
    """(N,): the logit of each image by a classifier that was not fitted on it."""
    distances: np.ndarray
    """(N,): the distance of each image from the images of a familiarity that was not fitted on it."""
    kinds: np.ndarray
    """(N,) int: 0 for files as they are, other numbers for kinds of changed copies; the thresholds hold for each kind
    alone."""


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """The parts of a detector that follow from left-out results."""

    calibration: Calibration
    thresholds: Thresholds
    left_out: LeftOut
    farthest: float
    """See `Familiarity.limit`."""


def assemble(
    scorer: Scorer,
    familiarity: Familiarity,
    settings: DireSettings,
    results: LeftOutResults,
    limits: Limits,
    training: dict[str, Any],
) -> Detector:
    """Calibrate a classifier, choose the thresholds, and put the parts of a detector together.

    Args:
        scorer: the classifier.
        familiarity: the distribution of the images; its limit is chosen here.
        settings: those of the reconstructions.
        results: what calibration, thresholds and the limit of the familiarity are chosen from.
        limits: where there are too few images for a limit, the smallest possible one takes its place.
        training: the record; the calibration error is added.
    """
    point = operating_point(results, limits)
    labels, logits = np.array([image.label for image in results.images]), results.logits
    return Detector(
        scorer=scorer,
        familiarity=replace(familiarity, limit=point.farthest),
        settings=settings,
        calibration=point.calibration,
        thresholds=point.thresholds,
        left_out=point.left_out,
        training={
            **training,
            "calibration_error": {
                "before": expected_calibration_error(labels, UNCALIBRATED.probabilities(logits)),
                "after": expected_calibration_error(labels, point.calibration.probabilities(logits)),
            },
        },
    )


def operating_point(results: LeftOutResults, limits: Limits) -> OperatingPoint:
    """What `assemble` chooses. With too few images for a limit, the smallest possible one takes its place."""
    calibration = fit_calibration(np.array([image.label for image in results.images]), results.logits)
    probabilities = calibration.probabilities(results.logits)

    def scores(rows: np.ndarray) -> LeftOut:
        images = [image for image, is_in in zip(results.images, rows, strict=True) if is_in]
        return left_out_scores(images, probabilities[rows].tolist())

    left_out = None
    for kind in reversed(np.unique(results.kinds)):
        left_out = replace(scores(results.kinds == kind), copies=left_out)
    assert left_out is not None
    # Groups of both classes together; the class is the collection.
    names = (f"{CLASSES[image.label]}/{image.group}" for image in results.images)
    return OperatingPoint(
        calibration=calibration,
        thresholds=left_out.thresholds(
            max(limits.max_false_alarms, left_out.smallest_limit("real")),
            max(limits.max_misses, left_out.smallest_limit("generated")),
        ),
        left_out=left_out,
        farthest=first_error(by_group(names, results.distances.tolist()), limits.unfamiliar_rate),
    )
