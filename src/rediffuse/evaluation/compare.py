"""Compare two sets of images: FID, sFID, inception score, precision, recall; the statistics of a set can be cached."""

import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rediffuse.errors import CheckpointError, InputError
from rediffuse.evaluation.batches import ImageSet
from rediffuse.evaluation.features import FeatureNetwork
from rediffuse.evaluation.statistics import (
    NUM_NEIGHBOURS,
    Moments,
    RunningMoments,
    frechet_distance,
    inception_score,
    precision_and_recall,
)
from rediffuse.files import atomic_write
from rediffuse.records import digest

Progress = Callable[[int], object]
"""Called after each batch with its number of images."""


@dataclass(frozen=True, kw_only=True)
class SetStatistics:
    """Statistics of a network's features of a set of images."""

    num_images: int
    """Number of images that the network computed; 0 where the set consists of statistics only."""
    failures: tuple[str, ...]
    """Reasons for the images that could not be read."""
    pooled: Moments
    spatial: Moments | None
    features: Tensor | None
    """(N, D) float32, for precision and recall; None without images."""
    inception_score: float | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The figures of samples against a reference; None for a figure that cannot be computed."""

    fid: float
    sfid: float | None
    inception_score: float | None
    """That of the samples; it does not depend on the reference."""
    precision: float | None
    recall: float | None


def statistics_of(
    images: ImageSet,
    network: FeatureNetwork,
    *,
    batch_size: int = 64,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> SetStatistics:
    """Compute the statistics of a set of images, or read them from the cache.

    Statistics that the set includes replace the computed ones, because they may be of more images.

    Args:
        images: from `batches.open_set`.
        network: must have as many features as the statistics that the set includes.
        batch_size: images per call of the network, at least 1.
        cache: a folder for the statistics; a file's name is a hash of the content of the set and of the network.
        progress: called after each batch with its number of images.

    Raises:
        InputError: fewer than two images, images of several sizes, a damaged file.
        StorageError: the cache cannot be written.
    """
    assert batch_size >= 1
    if images.images is None:
        assert images.pooled is not None  # open_set refuses a set without images and statistics
        return SetStatistics(
            num_images=0,
            failures=(),
            pooled=images.pooled,
            spatial=images.spatial,
            features=None,
            inception_score=None,
        )
    kept = None if cache is None else cache / f"{digest(_Key(images=images.digest, network=network.sha256))}.npz"
    if kept is not None and kept.is_file():
        seen = _read(kept)
    else:
        seen = _compute(images, network, batch_size, progress)
        if kept is not None and not seen.failures:
            _write(kept, seen)
    if images.pooled is None:
        return seen
    return replace(seen, pooled=images.pooled, spatial=images.spatial)


def compare(samples: SetStatistics, reference: SetStatistics, *, device: torch.device | str = "cpu") -> Comparison:
    """The figures of guided-diffusion's evaluator (arXiv:2105.05233, section 4).

    Args:
        samples: statistics of the samples.
        reference: statistics of the reference, from the same network.
        device: where the distances between features are computed.

    Raises:
        InputError: statistics of different numbers of features.
    """
    sfid = None
    if samples.spatial is not None and reference.spatial is not None:
        sfid = frechet_distance(samples.spatial, reference.spatial)
    precision = recall = None
    if samples.features is not None and reference.features is not None:
        sets = (samples.features.to(device), reference.features.to(device))
        if min(map(len, sets)) > NUM_NEIGHBOURS:
            precision, recall = precision_and_recall(*sets)
    return Comparison(
        fid=frechet_distance(samples.pooled, reference.pooled),
        sfid=sfid,
        inception_score=samples.inception_score,
        precision=precision,
        recall=recall,
    )


@dataclass(frozen=True, kw_only=True)
class _Key:
    """Everything that cached statistics depend on."""

    images: str
    network: str


def _compute(images: ImageSet, network: FeatureNetwork, batch_size: int, progress: Progress | None) -> SetStatistics:
    assert images.images is not None
    pooled, spatial = RunningMoments(), RunningMoments()
    features, probabilities = [], []
    for pixels in images.images.batches(batch_size):
        seen = network(torch.tensor(pixels).movedim(-1, 1).contiguous())
        pooled.update(seen.pooled)
        if seen.spatial is not None:
            spatial.update(seen.spatial)
        features.append(seen.pooled)
        probabilities.append(seen.probabilities)
        if progress:
            progress(len(pixels))
    if pooled.count < 2:
        raise InputError(f"{images.path}: {pooled.count} readable images; at least 2 are needed")
    return SetStatistics(
        num_images=pooled.count,
        failures=tuple(images.images.failures),
        pooled=pooled.moments(),
        spatial=spatial.moments() if spatial.count else None,
        features=torch.cat(features),
        inception_score=inception_score(torch.cat(probabilities)),
    )


def _write(path: Path, seen: SetStatistics) -> None:
    """Write the arrays with the names of guided-diffusion's reference batches, so that its evaluator can read them."""
    arrays: dict[str, Any] = {
        "mu": seen.pooled.mean,
        "sigma": seen.pooled.covariance,
        "features": seen.features,
        "inception_score": seen.inception_score,
    }
    if seen.spatial is not None:
        arrays |= {"mu_s": seen.spatial.mean, "sigma_s": seen.spatial.covariance}
    with atomic_write(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)


def _read(path: Path) -> SetStatistics:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: torch.from_numpy(archive[name]) for name in archive.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: cached statistics that cannot be read ({error}); delete the file") from None
    spatial = None
    if "mu_s" in arrays:
        spatial = Moments(mean=arrays["mu_s"], covariance=arrays["sigma_s"])
    return SetStatistics(
        num_images=len(arrays["features"]),
        failures=(),
        pooled=Moments(mean=arrays["mu"], covariance=arrays["sigma"]),
        spatial=spatial,
        features=arrays["features"],
        inception_score=float(arrays["inception_score"]),
    )
