"""Figures that compare two sets of images by their features: Frechet distance, inception score, precision, recall.

Sums and matrices are float64 on the CPU, because the distance is a small difference of large traces.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rediffuse.errors import ConfigError, InputError

SPLIT_SIZE = 5000
"""Images per split, as in guided-diffusion: the inception score of a set is the mean over its splits."""
NUM_NEIGHBOURS = 3
"""k of the precision and recall in the papers (arXiv:1904.06991, section 2; arXiv:2105.05233, appendix)."""
_BLOCK = 1024
"""Rows of a distance matrix that are computed at once: the full matrix of 50,000 images would need 10 GB."""


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Mean and covariance of a set of features."""

    mean: Tensor
    """(D,) float64."""
    covariance: Tensor
    """(D, D) float64, the unbiased estimate: divided by N - 1."""

    def __post_init__(self) -> None:
        assert self.covariance.shape == (len(self.mean), len(self.mean))


class RunningMoments:
    """Mean and covariance of features in batches, as accurate as if computed from all features at once.

    Batches are merged by their deviations (Chan, Golub and LeVeque 1979): sums of squares would lose digits where the
    mean is large and the variance small.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean = torch.zeros(0, dtype=torch.float64)
        self._scatter = torch.zeros(0, 0, dtype=torch.float64)

    def update(self, features: Tensor) -> None:
        """Add a batch of features, (N, D), N at least 1."""
        x = features.to("cpu", torch.float64)
        count, mean = len(x), x.mean(dim=0)
        centred = x - mean
        scatter = centred.T @ centred
        if not self.count:
            self.count, self._mean, self._scatter = count, mean, scatter
            return
        total, shift = self.count + count, mean - self._mean
        self._scatter += scatter + torch.outer(shift, shift) * (self.count * count / total)
        self._mean += shift * (count / total)
        self.count = total

    def moments(self) -> Moments:
        """The moments of all batches. Raises InputError for fewer than two images, which have no covariance."""
        if self.count < 2:
            raise InputError(f"{self.count} images: at least 2 are needed for a covariance")
        return Moments(mean=self._mean.clone(), covariance=self._scatter / (self.count - 1))


def frechet_distance(a: Moments, b: Moments) -> float:
    """|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)): the FID, for features of Inception (arXiv:1706.08500).

    S_a S_b has the same eigenvalues as S_a^(1/2) S_b S_a^(1/2), which is symmetric. So no complex numbers arise, and
    covariances may be singular (fewer images than features) without adding a multiple of the identity.

    Raises:
        InputError: the two have different numbers of features.
    """
    if a.mean.shape != b.mean.shape:
        raise InputError(f"{len(a.mean)} features cannot be compared with {len(b.mean)}: use one network for both")
    values, vectors = torch.linalg.eigh(a.covariance)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    # Rounding makes some of the zero eigenvalues of a singular matrix slightly negative.
    eigenvalues = torch.linalg.eigvalsh(root @ b.covariance @ root).clamp(min=0)
    traces = a.covariance.trace() + b.covariance.trace() - 2 * eigenvalues.sqrt().sum()
    return float((a.mean - b.mean).square().sum() + traces)


def inception_score(probabilities: Tensor, split_size: int = SPLIT_SIZE) -> float:
    """exp of the mean KL(p(y|x) || p(y)), averaged over splits of the set (arXiv:1606.03498, section 4).

    Args:
        probabilities: (N, K), N at least 1; rows sum to 1.
        split_size: images per split; the last one may be smaller.
    """
    scores = []
    for split in probabilities.double().split(split_size):
        marginal = split.mean(dim=0)
        kl = torch.xlogy(split, split).sum(dim=1) - torch.xlogy(split, marginal).sum(dim=1)
        scores.append(kl.mean().exp())
    return float(torch.stack(scores).mean())


def precision_and_recall(
    samples: Tensor, reference: Tensor, num_neighbours: int = NUM_NEIGHBOURS
) -> tuple[float, float]:
    """Precision: the share of samples in the reference's manifold; recall: the reverse (arXiv:1904.06991, Eq. 1, 2).

    The manifold of a set is the union of balls around its members; a ball's radius is the distance to the k-th nearest
    neighbour.

    Args:
        samples: features, (N, D).
        reference: features, (M, D), on the same device.
        num_neighbours: k, at least 1.

    Raises:
        ConfigError: a set has no more than k images.
    """
    for name, features in (("samples", samples), ("reference", reference)):
        if len(features) <= num_neighbours:
            raise ConfigError(f"{name}: {len(features)} images, more than num_neighbours={num_neighbours} are needed")
    precision = _share_within(samples, reference, _radii(reference, num_neighbours))
    return precision, _share_within(reference, samples, _radii(samples, num_neighbours))


def _radii(features: Tensor, num_neighbours: int) -> Tensor:
    """(N,): the distance of each feature to its k-th nearest neighbour."""
    # The nearest neighbour is the feature itself, hence k + 1.
    return torch.cat(
        [torch.cdist(rows, features).kthvalue(num_neighbours + 1, dim=1).values for rows in features.split(_BLOCK)]
    )


def _share_within(features: Tensor, centres: Tensor, radii: Tensor) -> float:
    """The share of features that lie in at least one ball."""
    within = sum(int((torch.cdist(rows, centres) <= radii).any(dim=1).sum()) for rows in features.split(_BLOCK))
    return within / len(features)
