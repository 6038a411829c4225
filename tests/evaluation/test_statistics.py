"""Every figure against one computed by hand or from a closed form."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rediffuse.errors import ConfigError, InputError
from rediffuse.evaluation.statistics import (
    Moments,
    RunningMoments,
    frechet_distance,
    inception_score,
    precision_and_recall,
)


def gaussian(mean: list[float], covariance: list[list[float]]) -> Moments:
    return Moments(mean=torch.tensor(mean).double(), covariance=torch.tensor(covariance).double())


def test_batches_of_any_size_give_the_moments_of_all_at_once() -> None:
    x = 1e4 + torch.randn(50, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    running = RunningMoments()
    for batch in x.split([1, 7, 30, 12]):
        running.update(batch)
    moments = running.moments()
    assert running.count == 50
    torch.testing.assert_close(moments.mean, x.mean(dim=0), rtol=1e-14, atol=0)
    np.testing.assert_allclose(moments.covariance, np.cov(x.numpy(), rowvar=False), rtol=1e-9, atol=1e-12)


def test_one_image_has_no_covariance() -> None:
    running = RunningMoments()
    running.update(torch.ones(1, 3))
    with pytest.raises(InputError, match="1 images: at least 2"):
        running.moments()


def test_frechet_distance_of_independent_features_is_that_of_means_and_standard_deviations() -> None:
    a = gaussian([0, 0], [[1, 0], [0, 4]])
    b = gaussian([3, 4], [[9, 0], [0, 1]])
    assert frechet_distance(a, b) == pytest.approx(25 + (1 - 3) ** 2 + (2 - 1) ** 2)


def test_frechet_distance_of_covariances_that_do_not_commute() -> None:
    # For 2x2 matrices tr (AB)^(1/2) = (tr AB + 2 (det A det B)^(1/2))^(1/2): here tr AB = 4, det A = 1, det B = 3.
    a, b = gaussian([0, 0], [[2, 1], [1, 1]]), gaussian([0, 0], [[2, -1], [-1, 2]])
    trace_ab = float((a.covariance @ b.covariance).trace())
    assert trace_ab == 4
    expected = 3 + 4 - 2 * math.sqrt(4 + 2 * math.sqrt(1 * 3))
    assert frechet_distance(a, b) == pytest.approx(expected)
    assert frechet_distance(b, a) == pytest.approx(expected)


def test_frechet_distance_needs_no_inverse() -> None:
    line, plane = gaussian([0, 0], [[1, 1], [1, 1]]), gaussian([0, 0], [[4, 4], [4, 4]])
    assert frechet_distance(line, plane) == pytest.approx(2 * (2 - 1) ** 2)  # along one axis, by sqrt(2)
    assert frechet_distance(line, line) == pytest.approx(0, abs=1e-12)


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), st.integers(2, 12))
def test_frechet_distance_of_rotated_axes_is_the_one_before(seed: int, num_images: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    sets = [torch.randn(num_images, 6, generator=rng, dtype=torch.float64) for _ in range(2)]
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=rng, dtype=torch.float64)).Q
    before, after = (frechet_distance(*(moments(x @ turn) for x in sets)) for turn in (torch.eye(6).double(), rotation))
    assert before >= -1e-9
    assert after == pytest.approx(before, rel=1e-6, abs=1e-6)


def moments(x: torch.Tensor) -> Moments:
    running = RunningMoments()
    running.update(x)
    return running.moments()


def test_features_of_two_networks_are_refused() -> None:
    with pytest.raises(InputError, match="2 features cannot be compared with 1"):
        frechet_distance(gaussian([0, 0], [[1, 0], [0, 1]]), gaussian([0], [[1]]))


def test_inception_score_runs_from_one_to_the_number_of_classes() -> None:
    assert inception_score(torch.full((10, 4), 0.25)) == pytest.approx(1)
    assert inception_score(torch.eye(4).repeat(5, 1)) == pytest.approx(4)


def test_inception_score_is_the_mean_over_splits_of_which_the_last_is_short() -> None:
    certain_of_two = torch.eye(2).repeat(2, 1)
    undecided = torch.full((1, 2), 0.5)
    assert inception_score(torch.cat([certain_of_two, undecided]), split_size=4) == pytest.approx((2 + 1) / 2)


def test_precision_and_recall_by_hand() -> None:
    # On a line: the reference's balls (k = 1) are [-1, 1], [0, 2], [1, 3] (0, 1, 2) and [2, 18] (10); those of the
    # samples reach from 0 to 1 (0.5), 0.5 to 1.5 (1), 1 to 3 (2) and -16 to 56 (20).
    reference = torch.tensor([[0.0], [1.0], [2.0], [10.0]])
    samples = torch.tensor([[0.5], [1.0], [2.0], [20.0]])
    precision, recall = precision_and_recall(samples, reference, num_neighbours=1)
    assert precision == 3 / 4
    assert recall == 1
    assert precision_and_recall(samples[:3], reference, num_neighbours=1) == (1, 3 / 4)


def test_more_images_than_neighbours_are_needed() -> None:
    with pytest.raises(ConfigError, match="samples: 3 images, more than num_neighbours=3"):
        precision_and_recall(torch.zeros(3, 2), torch.zeros(9, 2))
