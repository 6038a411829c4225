"""Figures of binary classification: how well scores separate generated images from real ones.

`labels` are 1 for generated and 0 for real; a higher score means `generated`. Figures that depend on the numbers of
images per class (average precision, accuracy, calibration error, Brier score) have equal weight for both classes.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

MOST_GROUPS = 5000
"""Largest number of groups of a class that are resampled."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate and its confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The figures of a detector on one set of images."""

    num_real: int
    num_generated: int
    auc: Interval
    average_precision: float
    accuracy: float
    """The mean of the two below."""
    real_accuracy: float
    """The share of real images with a probability below 0.5."""
    generated_accuracy: float
    """The share of generated images with a probability of 0.5 or more."""
    tpr_at_1_percent_fpr: float
    tpr_at_5_percent_fpr: float
    calibration_error: float
    brier: float
    """The mean of (probability - label)^2."""


def figures(labels: np.ndarray, probabilities: np.ndarray, groups: np.ndarray) -> Figures:
    """All figures of a set of images; both classes must occur.

    Args:
        labels: (N,) in {0, 1}.
        probabilities: (N,) in [0, 1].
        groups: (N,) str, for the interval of the AUC; see `group_auc_interval`.
    """
    weights = equal_class_weights(labels)
    right = np.array([((probabilities >= 0.5) == label)[labels == label].mean() for label in (0, 1)])
    return Figures(
        num_real=int((labels == 0).sum()),
        num_generated=int((labels == 1).sum()),
        auc=group_auc_interval(labels, probabilities, groups),
        average_precision=float(average_precision_score(labels, probabilities, sample_weight=weights)),
        accuracy=float(right.mean()),
        real_accuracy=float(right[0]),
        generated_accuracy=float(right[1]),
        tpr_at_1_percent_fpr=tpr_at_fpr(labels, probabilities, 0.01),
        tpr_at_5_percent_fpr=tpr_at_fpr(labels, probabilities, 0.05),
        calibration_error=expected_calibration_error(labels, probabilities),
        brier=float(np.sum(weights * (probabilities - labels) ** 2)),
    )


def roc_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """The probability that a generated image has a higher score than a real one; ties count half."""
    return float(roc_auc_score(labels, scores))


def mean_auc(labels: np.ndarray, scores: np.ndarray, collections: np.ndarray) -> float:
    """The mean of the AUCs of all pairs of a collection of generated images and one of real images.

    Args:
        labels: (N,) in {0, 1}.
        scores: (N,); those of two collections of one class may be from different classifiers.
        collections: (N,) str.
    """
    parts = (
        [(labels == label) & (collections == name) for name in np.unique(collections[labels == label])]
        for label in (0, 1)
    )
    pairs = [real | generated for real, generated in itertools.product(*parts)]
    return float(np.mean([roc_auc(labels[pair], scores[pair]) for pair in pairs]))


def auc_interval(labels: np.ndarray, scores: np.ndarray, *, resamples: int = 2000, seed: int = 0) -> Interval:
    """The AUC and its interval over images; see `bootstrap_aucs`."""
    return percentile_interval(roc_auc(labels, scores), bootstrap_aucs(labels, scores, resamples=resamples, seed=seed))


def percentile_interval(value: float, resampled: np.ndarray) -> Interval:
    """An estimate, and the 95 % percentile bootstrap interval of its resampled values (resamples,)."""
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Interval(value=value, low=float(low), high=float(high))


def bootstrap_aucs(labels: np.ndarray, scores: np.ndarray, *, resamples: int, seed: int) -> np.ndarray:
    """The AUC of resampled images, (resamples,); each class is resampled separately (Efron, Tibshirani 1993, 13.3).

    Drawing n scores with replacement is one multinomial draw over the distinct scores, so many resamples are one array
    of (resamples, distinct scores).
    """
    generator = np.random.default_rng(seed)
    distinct, place = np.unique(scores, return_inverse=True)
    real, generated = (np.bincount(place[labels == label], minlength=len(distinct)) for label in (0, 1))
    n, m = int(real.sum()), int(generated.sum())
    aucs = np.empty(resamples)
    block = max(1, 4_000_000 // len(distinct))  # limits the arrays to about 100 MB
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        reals = generator.multinomial(n, real / n, size)  # (size, distinct)
        generateds = generator.multinomial(m, generated / m, size)
        below = reals.cumsum(1) - 0.5 * reals  # real images with a lower score; ties count half
        aucs[start : start + size] = (generateds * below).sum(1) / (n * m)
    return aucs


def group_auc_interval(
    labels: np.ndarray, scores: np.ndarray, groups: np.ndarray, *, resamples: int = 2000, seed: int = 0
) -> Interval:
    """The AUC and its 95 % percentile bootstrap interval over groups, resampled separately in each class.

    Images of one group are alike, so an interval over images would be too narrow for an unseen group. If a class has a
    single group, or so many that groups hardly differ from images, the interval is over images (`auc_interval`).
    """
    numbers = [len(np.unique(groups[labels == label])) for label in (0, 1)]
    if min(numbers) < 2 or max(numbers) > MOST_GROUPS:
        return auc_interval(labels, scores, resamples=resamples, seed=seed)
    aucs = group_bootstrap_aucs(labels, scores, groups, resamples=resamples, seed=seed)
    return percentile_interval(roc_auc(labels, scores), aucs)


def auc_change(labels: np.ndarray, before: np.ndarray, after: np.ndarray) -> Interval:
    """The AUC of other scores of the same images minus that of the first, and its interval over images (paired)."""
    each = np.arange(len(labels))
    aucs = [group_bootstrap_aucs(labels, scores, each, resamples=2000, seed=0) for scores in (before, after)]
    return percentile_interval(roc_auc(labels, after) - roc_auc(labels, before), aucs[1] - aucs[0])


def group_bootstrap_aucs(
    labels: np.ndarray, scores: np.ndarray, groups: np.ndarray, *, resamples: int, seed: int
) -> np.ndarray:
    """The AUC of resampled groups, (resamples,); the groups of each class are resampled separately.

    The groups that are drawn do not depend on the scores: so the difference of two results for the same images has the
    distribution of the difference of their AUCs.
    """
    wins = _wins_by_group(labels, scores, groups)  # (G, R): sums over pairs of images
    generator = np.random.default_rng(seed)
    sizes = [np.unique(groups[labels == label], return_counts=True)[1] for label in (1, 0)]  # images of each group
    generateds, reals = (generator.multinomial(n, np.full(n, 1 / n), resamples) for n in wins.shape)
    return ((generateds @ wins) * reals).sum(axis=1) / ((generateds @ sizes[0]) * (reals @ sizes[1]))


def tpr_at_fpr(labels: np.ndarray, scores: np.ndarray, rate: float) -> float:
    """The largest share of detected generated images, if at most a share `rate` of the real images is a false alarm."""
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    return float(tpr[fpr <= rate].max())


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray, num_bins: int = 15) -> float:
    """Mean difference of probability and frequency of generated images (arXiv:1706.04599, Eq. 3), in [0, 1]."""
    bins = np.minimum((probabilities * num_bins).astype(int), num_bins - 1)
    gaps = np.bincount(bins, weights=equal_class_weights(labels) * (labels - probabilities))
    return float(np.abs(gaps).sum())


def equal_class_weights(labels: np.ndarray) -> np.ndarray:
    """Weights (N,) that sum to 1/2 over each class."""
    counts = np.bincount(labels.astype(int))
    return 0.5 / counts[labels.astype(int)]


def _wins_by_group(labels: np.ndarray, scores: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(G, R): for generated and real groups, the number of pairs in which the generated image scores higher."""
    generated, real = (scores[labels == label] for label in (1, 0))
    in_generated, in_real = (np.unique(groups[labels == label], return_inverse=True)[1] for label in (1, 0))
    columns = []
    for group in range(in_real.max() + 1):
        own = np.sort(real[in_real == group])
        below = (np.searchsorted(own, generated, "left") + np.searchsorted(own, generated, "right")) / 2  # ties: half
        columns.append(np.bincount(in_generated, weights=below))
    return np.stack(columns, axis=1)
