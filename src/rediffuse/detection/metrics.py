"""Figures of binary classification: how well scores separate generated images from real ones.

`labels` are 1 for generated and 0 for real; a higher score means `generated`. Figures that depend on the numbers of
images per class (average precision, accuracy, calibration error) are computed with equal weight for both classes.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import accuracy_score, average_precision_score, roc_auc_score, roc_curve


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
    """The accuracy with the threshold 0.5."""
    tpr_at_1_percent_fpr: float
    tpr_at_5_percent_fpr: float
    calibration_error: float


def figures(labels: np.ndarray, probabilities: np.ndarray) -> Figures:
    """All figures from labels (N,) in {0, 1} and probabilities (N,) in [0, 1]; both classes must occur."""
    weights = equal_class_weights(labels)
    return Figures(
        num_real=int((labels == 0).sum()),
        num_generated=int((labels == 1).sum()),
        auc=auc_interval(labels, probabilities),
        average_precision=float(average_precision_score(labels, probabilities, sample_weight=weights)),
        accuracy=float(accuracy_score(labels, probabilities >= 0.5, sample_weight=weights)),
        tpr_at_1_percent_fpr=tpr_at_fpr(labels, probabilities, 0.01),
        tpr_at_5_percent_fpr=tpr_at_fpr(labels, probabilities, 0.05),
        calibration_error=expected_calibration_error(labels, probabilities),
    )


def roc_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """The probability that a generated image has a higher score than a real one; ties count half."""
    return float(roc_auc_score(labels, scores))


def auc_interval(
    labels: np.ndarray, scores: np.ndarray, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """The AUC and its percentile bootstrap interval over images; see `bootstrap_aucs`."""
    aucs = bootstrap_aucs(labels, scores, resamples=resamples, seed=seed)
    low, high = np.quantile(aucs, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value=roc_auc(labels, scores), low=float(low), high=float(high))


def bootstrap_aucs(labels: np.ndarray, scores: np.ndarray, *, resamples: int = 2000, seed: int = 0) -> np.ndarray:
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


def tpr_at_fpr(labels: np.ndarray, scores: np.ndarray, rate: float) -> float:
    """The largest share of detected generated images, if at most a share `rate` of the real images is a false alarm."""
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    return float(tpr[fpr <= rate].max())


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray, num_bins: int = 15) -> float:
    """Mean difference of probability and frequency of generated images (arXiv:1706.04599, Eq. 3), in [0, 1]."""
    bins = np.minimum((probabilities * num_bins).astype(int), num_bins - 1)
    gaps = np.bincount(bins, weights=equal_class_weights(labels) * (labels - probabilities), minlength=num_bins)
    return float(np.abs(gaps).sum())


def equal_class_weights(labels: np.ndarray) -> np.ndarray:
    """Weights (N,) that sum to 1/2 over each class."""
    counts = np.bincount(labels.astype(int), minlength=2)
    return 0.5 / counts[labels.astype(int)]
