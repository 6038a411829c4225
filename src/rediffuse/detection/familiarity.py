"""The distance of an image from the training images of a detector."""

from dataclasses import dataclass

import numpy as np
from sklearn.covariance import LedoitWolf


@dataclass(frozen=True, kw_only=True)
class Familiarity:
    """Mahalanobis distance to the nearer class mean under one shared covariance (arXiv:1807.03888, Eq. 2)."""

    centres: np.ndarray
    """(2, F) mean features of the real and of the generated training images."""
    precision: np.ndarray
    """(F, F) inverse of the covariance around these means."""
    limit: float = np.inf
    """An image with a larger distance counts as unlike the training images."""
    fewest_windows: int = 0
    """The number of windows of the training image that has the fewest; 0 for whole images."""

    def distances(self, features: np.ndarray, num_windows: np.ndarray | None = None) -> np.ndarray:
        """Distances (N,) >= 0 of images.

        Args:
            features: (N, F).
            num_windows: (N,) int; the distance of an image with fewer windows than `fewest_windows` is infinite,
                because a mean over few windows varies more than those of the training. None does not check this.
        """
        offsets = features[:, None] - self.centres  # (N, 2, F)
        squared = ((offsets @ self.precision) * offsets).sum(axis=2)
        distances = np.sqrt(squared.min(axis=1))
        return distances if num_windows is None else np.where(num_windows < self.fewest_windows, np.inf, distances)


def fit_familiarity(features: np.ndarray, labels: np.ndarray) -> Familiarity:
    """Class means and covariance (shrunk, Ledoit and Wolf 2004) of training features (N, F); the limit is not set."""
    scale = feature_scale(features)  # shrinkage is towards a multiple of the identity: needs equal units
    scaled = features / scale
    centres = np.stack([scaled[labels == label].mean(axis=0) for label in (0, 1)])
    covariance = LedoitWolf().fit(scaled - centres[labels.astype(int)])
    return Familiarity(centres=centres * scale, precision=covariance.precision_ / np.outer(scale, scale))


def feature_scale(features: np.ndarray) -> np.ndarray:
    """The standard deviation of each feature, (F,), or float32's resolution if that is larger."""
    return np.maximum(features.std(axis=0), 1e-6)
