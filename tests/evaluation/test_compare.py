"""Comparisons of sets from files, from the cache and from given statistics."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rediffuse.errors import CheckpointError, InputError
from rediffuse.evaluation.batches import open_set
from rediffuse.evaluation.compare import SetStatistics, compare, statistics_of
from rediffuse.evaluation.features import FeatureNetwork
from rediffuse.evaluation.statistics import inception_score


def look(path: Path, network: FeatureNetwork, cache: Path | None = None, batch_size: int = 5) -> SetStatistics:
    return statistics_of(open_set(str(path)), network, batch_size=batch_size, cache=cache)


def test_statistics_are_those_of_all_features_at_once(
    folder: Path, pixels: np.ndarray, network: FeatureNetwork
) -> None:
    told: list[int] = []
    seen = statistics_of(open_set(str(folder)), network, batch_size=5, progress=told.append)
    features = network(torch.from_numpy(pixels).movedim(-1, 1))
    assert features.spatial is not None
    assert seen.spatial is not None
    np.testing.assert_allclose(seen.pooled.covariance, np.cov(features.pooled.numpy(), rowvar=False), rtol=1e-3)
    np.testing.assert_allclose(seen.spatial.mean, features.spatial.double().mean(dim=0), rtol=1e-4, atol=1e-6)
    assert seen.inception_score == pytest.approx(inception_score(features.probabilities), rel=1e-4)
    assert (seen.num_images, told) == (12, [5, 5, 2])


def test_a_set_is_at_no_distance_from_itself(folder: Path, network: FeatureNetwork) -> None:
    seen = look(folder, network)
    figures = compare(seen, seen)
    assert figures.fid == pytest.approx(0, abs=1e-5)
    assert figures.sfid == pytest.approx(0, abs=1e-5)
    assert (figures.precision, figures.recall) == (1, 1)
    assert figures.inception_score == seen.inception_score


def test_darker_images_are_further_away_than_as_many_others(
    folder: Path, pixels: np.ndarray, network: FeatureNetwork, tmp_path: Path
) -> None:
    np.savez(tmp_path / "near.npz", np.random.default_rng(1).integers(0, 256, pixels.shape, dtype=np.uint8))
    np.savez(tmp_path / "far.npz", pixels // 4)
    reference = look(folder, network)
    near, far = (compare(look(tmp_path / f"{name}.npz", network), reference) for name in ("near", "far"))
    assert 0 < near.fid < far.fid
    assert (far.precision, far.recall) == (0, 0)


def test_what_was_seen_is_not_looked_at_again(folder: Path, network: FeatureNetwork, tmp_path: Path) -> None:
    first = look(folder, network, tmp_path / "cache")
    told: list[int] = []
    again = statistics_of(open_set(str(folder)), network, cache=tmp_path / "cache", progress=told.append)
    assert told == []
    assert (again.num_images, again.inception_score) == (12, first.inception_score)
    assert torch.equal(again.pooled.covariance, first.pooled.covariance)
    assert again.features is not None
    assert first.features is not None
    assert torch.equal(again.features, first.features)
    [kept] = (tmp_path / "cache").iterdir()
    assert look(kept, network).pooled.mean.tolist() == first.pooled.mean.tolist()  # as a reference's statistics
    kept.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"cached statistics that cannot be read .*; delete the file"):
        look(folder, network, tmp_path / "cache")


def test_a_set_with_unreadable_files_is_not_kept(folder: Path, network: FeatureNetwork, tmp_path: Path) -> None:
    (folder / "05.png").write_bytes(b"no image")
    seen = look(folder, network, tmp_path / "cache")
    assert (seen.num_images, len(seen.failures)) == (11, 1)
    assert not (tmp_path / "cache").exists()


def test_given_statistics_come_before_those_of_the_images(
    folder: Path, pixels: np.ndarray, network: FeatureNetwork, tmp_path: Path
) -> None:
    seen = look(folder, network)
    mu, sigma = seen.pooled.mean.numpy(), seen.pooled.covariance.numpy()
    np.savez(tmp_path / "both.npz", arr_0=pixels, mu=mu + 1, sigma=sigma)
    np.savez(tmp_path / "alone.npz", mu=mu + 1, sigma=sigma)
    both, alone = (compare(seen, look(tmp_path / f"{name}.npz", network)) for name in ("both", "alone"))
    assert both.fid == pytest.approx(len(mu), rel=1e-4)
    assert alone.fid == both.fid
    assert (both.sfid, both.precision, both.recall) == (None, 1, 1)
    assert (alone.sfid, alone.precision, alone.recall) == (None, None, None)


def test_statistics_of_another_network_are_refused(folder: Path, network: FeatureNetwork, tmp_path: Path) -> None:
    np.savez(tmp_path / "reference.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    with pytest.raises(InputError, match="12 features cannot be compared with 2048"):
        compare(look(folder, network), look(tmp_path / "reference.npz", network))


def test_one_readable_image_is_too_few(folder: Path, network: FeatureNetwork) -> None:
    for path in sorted(folder.iterdir())[1:]:
        path.write_bytes(b"no image")
    with pytest.raises(InputError, match="images: 1 readable images; at least 2 are needed"):
        look(folder, network)
