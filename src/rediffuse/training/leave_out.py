"""Which images a classifier is fitted on, and which are left out to choose and calibrate it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rediffuse.detection.familiarity import fit_familiarity
from rediffuse.detection.labelled import CLASSES, LabelledImage
from rediffuse.errors import InputError

MOST_FOLDS = 8


Fit = tuple[np.ndarray, np.ndarray]
"""The images of a fit, and the images that it leaves out and that its classifier is applied to; boolean masks (N,)."""


@dataclass(frozen=True)
class Plan:
    """A final fit, and fits that leave images out."""

    rows: np.ndarray
    """The images of the final fit, a boolean mask (N,)."""
    fits: tuple[Fit, ...]
    """Fits for calibration and thresholds."""
    fits_to_choose: tuple[Fit, ...]
    """Fits by which candidates are compared."""


def left_out(fits: Sequence[Fit]) -> np.ndarray:
    """All images that some fit leaves out, a boolean mask (N,)."""
    return np.any([rows for _, rows in fits], axis=0)


def plan_of_splits(is_train: np.ndarray) -> Plan:
    """One fit on the training images; the others are left out."""
    fits = ((is_train, ~is_train),)
    return Plan(is_train, fits, fits)


def plan_of_folds(images: Sequence[LabelledImage], folds: np.ndarray, rows: np.ndarray, may_fit: np.ndarray) -> Plan:
    """Fits that leave out one fold each, and to choose by, fits that leave out one collection of one class each.

    So a candidate is chosen for new collections of photographs, and not only for new groups of the same collections. Of
    a class with one collection, or with more than `MOST_FOLDS`, the part in one fold is left out instead.

    Args:
        images: all images.
        folds: the fold of each, (N,) int.
        rows: the images to use, a boolean mask (N,).
        may_fit: the images that may be fitted, a boolean mask (N,).
    """
    fit = rows & may_fit
    of_class = np.array([image.label for image in images])
    collections = np.array([image.collection for image in images])
    parts = []
    for label in range(len(CLASSES)):
        own = rows & (of_class == label)
        units = collections if 1 < len(np.unique(collections[own])) <= MOST_FOLDS else folds
        parts += [own & (units == one) for one in np.unique(units[own])]
    return Plan(
        fit,
        tuple((fit & (folds != one), rows & (folds == one)) for one in np.unique(folds[rows])),
        tuple((fit & ~part, part) for part in parts),
    )


def left_out_distances(features: np.ndarray, labels: np.ndarray, fits: Sequence[Fit]) -> np.ndarray:
    """(N,): the distance of every image, by the familiarity of the fit that leaves it out; NaN for the others.

    Args:
        features: (N, F), see `fit_familiarity`.
        labels: (N,) in {0, 1}.
        fits: each leaves out other images.
    """
    distances = np.full(len(labels), np.nan)
    for fit, left in fits:
        distances[left] = fit_familiarity(features[fit], labels[fit]).distances(features[left])
    return distances


def assign_folds(images: Sequence[LabelledImage]) -> np.ndarray:
    """The fold of each image, (N,) int from 0 on; each fold has whole groups of both classes.

    Generated images are left out by collection, because the generators of one collection are often related. Real images
    are left out by group. Where a class has one group only, its images are left out one by one. At most `MOST_FOLDS`
    folds; large units first, each to the fold that has the fewest images of its class.

    Raises:
        InputError: a class has fewer than 3 images.
    """
    units = [_units([image for image in images if image.label == label], label) for label in range(len(CLASSES))]
    num_folds = min(MOST_FOLDS, *(len(set(names.values())) for names in units))
    if num_folds < 3:  # nested folds need three
        numbers = [sum(image.label == label for image in images) for label in range(len(CLASSES))]
        raise InputError(f"{' and '.join(map(str, numbers))} real and generated images: at least 3 of each are needed")
    fold_of: dict[tuple[int, str], int] = {}
    for label, names in enumerate(units):
        sizes = np.zeros(num_folds, int)
        for unit, size in sorted(Counter(names.values()).items(), key=lambda item: (-item[1], item[0])):
            fold_of[label, unit] = int(sizes.argmin())
            sizes[sizes.argmin()] += size
    return np.array([fold_of[image.label, units[image.label][image.found.name]] for image in images])


def _units(images: Sequence[LabelledImage], label: int) -> dict[str, str]:
    """For each image by name what is left out together with it: its collection, its group, or only itself."""
    names = [
        {image.found.name: image.collection for image in images} if label else {},
        {image.found.name: image.group for image in images},
        {image.found.name: image.found.name for image in images},
    ]
    return next((units for units in names if len(set(units.values())) >= 3), names[-1])
