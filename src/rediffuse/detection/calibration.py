"""Convert a detector's logit to a probability, and the probability to a decision: `real`, `generated` or `unsure`."""

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression

from rediffuse.detection.metrics import equal_class_weights
from rediffuse.detection.verdict import Decision
from rediffuse.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Platt scaling: probability = sigmoid(slope * logit + offset)."""

    slope: float
    offset: float

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not np.isfinite(value):
                raise ConfigError(f"calibration: {name}={value}: a finite number is needed")

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """(N,) float64 in [0, 1]: the probability that an image is generated, if half of all images are."""
        # log sigmoid(z) = -log(1 + exp(-z)), computed without overflow for every z
        with np.errstate(invalid="ignore"):  # NaN stays NaN, which has a decision of its own
            return np.exp(-np.logaddexp(0, -(self.slope * logits.astype(np.float64) + self.offset)))


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """`generated` at or above one probability, `real` below another, `unsure` between them; see `left_out`."""

    real: float
    generated: float
    max_false_alarms: float
    """The largest allowed share of real images that are called generated."""
    max_misses: float
    """The largest allowed share of generated images that are called real."""

    def __post_init__(self) -> None:
        if not self.real <= self.generated:  # NaN too
            raise ConfigError(f"thresholds: real={self.real} is above generated={self.generated}")

    def decide(self, probability: float) -> Decision:
        if probability >= self.generated:
            return "generated"
        return "real" if probability < self.real else "unsure"


def fit_calibration(labels: np.ndarray, logits: np.ndarray) -> Calibration:
    """Platt scaling of validation logits (N,) (Platt 1999), with equal weight for both classes.

    The targets are Platt's (n + 1) / (n + 2) and 1 / (m + 2) instead of 1 and 0. So the slope is finite also for
    perfectly separated classes, and few images never give a probability of 0 or 1.
    """
    num_real, num_generated = np.bincount(labels.astype(int), minlength=2)
    targets = np.where(labels == 1, (num_generated + 1) / (num_generated + 2), 1 / (num_real + 2))
    weights = equal_class_weights(labels) * len(labels)
    fit = LogisticRegression(C=np.inf, max_iter=1000).fit(
        np.concatenate([logits, logits])[:, None],
        np.repeat([1, 0], len(labels)),
        sample_weight=np.concatenate([weights * targets, weights * (1 - targets)]),
    )
    return Calibration(slope=float(fit.coef_[0, 0]), offset=float(fit.intercept_[0]))
