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

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """(N,) float64 in [0, 1]: the probability that an image is generated, if half of all images are."""
        # log sigmoid(z) = -log(1 + exp(-z)), computed without overflow for every z
        return np.exp(-np.logaddexp(0, -(self.slope * logits.astype(np.float64) + self.offset)))


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """`generated` at or above one probability, `real` below another, `unsure` between them."""

    real: float
    generated: float
    error_rate: float
    """The largest allowed share of wrong decisions on the validation images of each class."""

    def __post_init__(self) -> None:
        if not 0 < self.error_rate < 0.5:
            raise ConfigError(f"error_rate={self.error_rate}: more than 0 and less than 0.5 is allowed")
        if self.real > self.generated:
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


def choose_thresholds(labels: np.ndarray, probabilities: np.ndarray, error_rate: float = 0.05) -> Thresholds:
    """The thresholds with the fewest `unsure` decisions for which both validation error rates are at most `error_rate`.

    `generated` is the lowest threshold at which at most that share of the real images counts as generated; `real` is
    the highest at which at most that share of the generated images counts as real. If `real` would be above
    `generated`, because the classes are well separated, both are set to their mean, and nothing is unsure.
    """
    real, generated = np.sort(probabilities[labels == 0])[::-1], np.sort(probabilities[labels == 1])
    # The first image that must not be decided wrongly; its own probability must be on the correct side.
    highest_real = float(real[_allowed(len(real), error_rate)])
    lowest_generated = float(generated[_allowed(len(generated), error_rate)])
    above, below = float(np.nextafter(highest_real, np.inf)), lowest_generated
    if above < below:
        above = below = (above + below) / 2
    return Thresholds(real=below, generated=above, error_rate=error_rate)


def _allowed(count: int, error_rate: float) -> int:
    return int(error_rate * count + 1e-9)
