import math

import numpy as np
import pytest

from rediffuse.detection.calibration import Calibration, Thresholds, fit_calibration
from rediffuse.detection.config import Limits
from rediffuse.detection.metrics import expected_calibration_error
from rediffuse.errors import ConfigError


def test_platt_scaling_recovers_the_sigmoid_that_drew_the_labels():
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1], 20_000)
    logits = generator.normal(size=40_000) + 2 * labels  # log-odds of two unit Gaussians: 2 x - 2
    calibration = fit_calibration(labels, logits)
    assert (calibration.slope, calibration.offset) == pytest.approx((2, -2), abs=0.1)
    assert expected_calibration_error(labels, calibration.probabilities(logits)) < 0.02


def test_platt_scaling_of_separated_classes_never_claims_certainty():
    labels, logits = np.repeat([0, 1], 10), np.repeat([-50.0, 50.0], 10)
    probabilities = fit_calibration(labels, logits).probabilities(logits)
    assert probabilities == pytest.approx(np.repeat([1 / 12, 11 / 12], 10), abs=1e-3)


def test_the_unit_of_the_logits_does_not_matter():
    labels = np.repeat([0, 1], 50)
    logits = np.random.default_rng(0).normal(size=100) + labels
    small = fit_calibration(labels, logits / 30).probabilities(logits / 30)
    np.testing.assert_allclose(small, fit_calibration(labels, logits).probabilities(logits), atol=1e-3)


def test_class_sizes_do_not_move_the_probability():
    labels, logits = np.repeat([0, 1], [1000, 100]), np.concatenate([np.linspace(-2, 1, 1000), np.linspace(-1, 2, 100)])
    assert fit_calibration(labels, logits).probabilities(np.zeros(1)) == pytest.approx(0.5, abs=0.01)


def test_thresholds_that_cross_are_refused_with_their_values():
    with pytest.raises(ConfigError, match=r"^thresholds: real=0\.6 is above generated=0\.4$"):
        Thresholds(real=0.6, generated=0.4, max_false_alarms=0.05, max_misses=0.05)


@pytest.mark.parametrize("name", ["max_false_alarms", "max_misses", "unfamiliar_rate"])
def test_limits_are_above_zero_and_below_one_half(name: str):
    assert getattr(Limits(**{name: 0.001}), name) == 0.001
    for limit in (0, 0.5, math.nan):
        with pytest.raises(ConfigError, match=rf"^{name}={limit}: more than 0 and less than 0\.5 is allowed$"):
            Limits(**{name: limit})


def test_a_number_that_is_not_finite_is_no_calibration():
    with pytest.raises(ConfigError, match=r"^calibration: offset=inf: a finite number is needed$"):
        Calibration(slope=1, offset=math.inf)


def test_no_logit_is_too_large_for_a_probability():
    assert Calibration(slope=2, offset=1).probabilities(np.array([-1e6, -0.5, 1e6])).tolist() == [0, 0.5, 1]
