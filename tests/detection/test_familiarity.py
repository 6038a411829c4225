from dataclasses import replace

import numpy as np
import pytest

from rediffuse.detection.familiarity import feature_scale, fit_familiarity


def two_clouds(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(count) % 2
    return np.random.default_rng(seed).normal(size=(count, 4)) * (1, 10, 100, 1000) + 5 * labels[:, None], labels


def test_distance_is_in_standard_deviations_from_the_nearer_class():
    familiarity = fit_familiarity(*two_clouds(20_000, seed=0))
    points = np.array([[0, 0, 0, 2000], [5, 5, 5, 5], [8, 5, 5, 5], [0, -40, 0, 0]])
    assert familiarity.distances(points) == pytest.approx([2, 0, 3, 4], abs=0.2)


def test_a_feature_that_never_varied_does_not_make_every_image_strange():
    features, labels = two_clouds(200, seed=0)
    features[:, 0] = 1
    assert np.isfinite(fit_familiarity(features, labels).distances(features)).all()


def test_distances_do_not_depend_on_the_units_of_the_features():
    features, labels = two_clouds(200, seed=0)
    units = np.array([1, 60, 1e-3, 1000])
    distances = fit_familiarity(features * units, labels).distances(features * units)
    np.testing.assert_allclose(distances, fit_familiarity(features, labels).distances(features), rtol=1e-6)


def test_an_image_with_fewer_windows_than_any_of_the_training_is_at_an_infinite_distance():
    familiarity = replace(fit_familiarity(*two_clouds(200, seed=0)), fewest_windows=3)
    points = np.zeros((3, 4))
    assert np.isposinf(familiarity.distances(points, np.array([2, 3, 8]))).tolist() == [True, False, False]
    np.testing.assert_array_equal(familiarity.distances(points, np.full(3, 3)), familiarity.distances(points))


def test_there_is_no_limit_at_first():
    assert fit_familiarity(*two_clouds(200, seed=0)).limit == np.inf


def test_scale_of_a_feature_is_its_spread_but_never_nothing():
    features = np.array([[0.0, 1.0, 5.0], [2.0, 1.0, 5.0 + 1e-9]])
    assert feature_scale(features).tolist() == [1, 1e-6, 1e-6]
