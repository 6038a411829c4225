"""Choose the thresholds of a detector by one's own files: `rediffuse calibrate`.

The detector's scores of own photographs, which it was not trained on, take the place of its left-out scores of
photographs. Then `generated` means: a higher score than all but a share `max_false_alarms` of these photographs
(conformal prediction, see `left_out`). The classifier and its probabilities do not change.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from scipy.stats import binomtest

from rediffuse.detection.config import FIVE_PERCENT, Limits
from rediffuse.detection.detector import Detector
from rediffuse.detection.evaluate import Judged, decision_with, judge_labelled
from rediffuse.detection.labelled import CLASSES, LabelledImage, scores_by_class
from rediffuse.detection.left_out import NOUNS, Label, num_images
from rediffuse.detection.metrics import Interval, group_auc_interval
from rediffuse.detection.verdict import Decision
from rediffuse.errors import InputError
from rediffuse.images.decode import printable
from rediffuse.images.find import find_images
from rediffuse.images.limits import Limits as FileLimits
from rediffuse.progress import Progress, unobserved
from rediffuse.zoo.model import DiffusionModel

DECISIONS: tuple[Decision, ...] = ("generated", "unsure", "real")


@dataclass(frozen=True, kw_only=True)
class CalibratedClass:
    """How the threshold for the images of one class was chosen, and what it does to the own ones."""

    label: Label
    is_own: bool
    """Whether the scores are those of own images; otherwise they are the detector's."""
    num_images: int
    num_groups: int
    limit: float
    """The largest share of these images that may be called the other class."""
    is_for_unseen: bool
    """Whether the limit holds for images of unseen groups, and not only for further images of the same groups."""
    smallest_limit: float
    """The smallest limit that the scores support."""
    threshold: float
    """`generated` from this probability on (real images); `real` below it (generated images)."""
    decisions: dict[Decision, Interval] | None
    """The shares of the own images by decision, with 95 % Clopper-Pearson intervals; None if there are none."""


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """A calibrated detector, and the report on its calibration."""

    detector: Detector
    classes: tuple[CalibratedClass, ...]
    """Real, then generated."""
    auc: Interval | None
    """The AUC on the own images, with an interval over groups; None if they are of one class."""
    skipped: tuple[str, ...]
    """The errors of files that were left out, one line each."""


def find_own(folders: Sequence[Path | str], label: Label, decoding: FileLimits = FileLimits()) -> list[LabelledImage]:
    """The images in folders of one class, each file once.

    Args:
        folders: the group of an image is the name of the folder and, below it, the folders that the image lies in, such
            as `phone/2024`.
        label: the class of the images.
        decoding: the limits of the files.

    Raises:
        InputError: a path is not a folder, or holds no images.
    """
    images: dict[str, LabelledImage] = {}
    names: list[str] = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise InputError(f"{printable(folder)}: is not a folder; folders of {label} images are needed")
        given = name = printable(folder.resolve().name or "root")
        number = 1
        while name in names:
            number += 1
            name = f"{given}-{number}"
        names.append(name)
        for found in find_images([folder], decoding):
            below = PurePosixPath(name) / found.name
            image = replace(found, name=f"{label}/{below}")
            images.setdefault(found.place, LabelledImage(image, CLASSES.index(label), below.parent.as_posix()))
    return list(images.values())


def calibrate(
    model: DiffusionModel,
    real: Sequence[Path | str],
    detector: Detector,
    *,
    generated: Sequence[Path | str] = (),
    limits: Limits = FIVE_PERCENT,
    decoding: FileLimits = FileLimits(),
    batch_size: int = 16,
    workers: int = 2,
    progress: Progress = unobserved,
) -> Calibrated:
    """Judge own images, and choose the thresholds of a detector by their scores.

    Images that are unlike those of the training count as well; files that cannot be judged are left out.

    Args:
        model: the model that the detector was trained with.
        real: folders of own photographs, see `find_own`. None of them may be in the detector's training data.
        detector: the detector.
        generated: folders of own generated images; without any, the detector's own left-out scores are kept.
        limits: the limits that the thresholds are chosen for; that of unfamiliar images is the detector's own.
        decoding: the limits of the files.
        batch_size: images, or windows of images, per call of the network, at least 1.
        workers: threads that decode, at least 1.
        progress: called with the number of judged images.

    Raises:
        InputError: a path is not a folder or holds no images, a file is in folders of both classes, or none of the
            images of a class can be judged.
        ConfigError: a limit is smaller than the number of images or groups supports; says how many are needed.
        SettingsMismatch: the detector was trained with another model.
    """
    own: dict[Label, list[LabelledImage]] = {"real": find_own(real, "real", decoding)}
    if generated:
        own["generated"] = find_own(generated, "generated", decoding)
    images = [image for of_class in own.values() for image in of_class]
    _require_one_class(images)
    # A limit that all files together do not support is refused before the work.
    possible = detector.left_out.with_own(scores_by_class(images, [0.5] * len(images)))
    possible.thresholds(limits.max_false_alarms, limits.max_misses)
    judged = judge_labelled(model, images, detector, None, batch_size=batch_size, workers=workers, progress=progress)
    scores = scores_by_class([one.image for one in judged.images], [one.detector.probability for one in judged.images])
    for label in own:
        if label not in scores:
            raise InputError(f"none of the {label} images can be used; the first: {judged.skipped[0]}")
    counts = {label: {"images": num_images(groups), "groups": len(groups)} for label, groups in scores.items()}
    calibrated = replace(
        detector,
        left_out=detector.left_out.with_own(scores),
        training={**detector.training, "calibrated": {**counts, "num_skipped": len(judged.skipped)}},
    )
    return report(
        calibrated.with_limits(limits.max_false_alarms, limits.max_misses), judged.images, skipped=judged.skipped
    )


def report(detector: Detector, own: Sequence[Judged], *, skipped: tuple[str, ...]) -> Calibrated:
    """The report on a detector whose thresholds were chosen by own images.

    Args:
        detector: the detector with these thresholds.
        own: the images with its probabilities; of one class or of both.
        skipped: the errors of files that were left out, one line each.
    """
    labels = np.array([one.image.label for one in own])
    probabilities = np.array([one.detector.probability for one in own])
    groups = np.array([one.image.group for one in own])
    return Calibrated(
        detector=detector,
        classes=tuple(
            _report(label, detector, [one for one in own if CLASSES[one.image.label] == label]) for label in NOUNS
        ),
        auc=group_auc_interval(labels, probabilities, groups) if len(np.unique(labels)) == len(CLASSES) else None,
        skipped=skipped,
    )


def _report(label: Label, detector: Detector, own: Sequence[Judged]) -> CalibratedClass:
    groups, thresholds = getattr(detector.left_out, label), detector.thresholds
    decisions = [decision_with(thresholds, one.detector) for one in own]
    return CalibratedClass(
        label=label,
        is_own=bool(own),
        num_images=num_images(groups),
        num_groups=len(groups),
        limit=thresholds.max_false_alarms if label == "real" else thresholds.max_misses,
        is_for_unseen=detector.left_out.is_for_unseen(label),
        smallest_limit=detector.left_out.smallest_limit(label),
        threshold=thresholds.generated if label == "real" else thresholds.real,
        decisions={name: share(decisions.count(name), len(decisions)) for name in DECISIONS} if own else None,
    )


def share(count: int, total: int) -> Interval:
    """A share with its 95 % confidence interval (Clopper and Pearson 1934), for independent trials."""
    limits = binomtest(count, total).proportion_ci(confidence_level=0.95, method="exact")
    return Interval(value=count / total, low=float(limits.low), high=float(limits.high))


def _require_one_class(images: Sequence[LabelledImage]) -> None:
    labels: dict[str, int] = {}
    for image in images:
        if labels.setdefault(image.found.place, image.label) != image.label:
            raise InputError(f"{image.found.source}: is in folders of both classes; one class is allowed")
