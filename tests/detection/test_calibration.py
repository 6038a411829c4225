import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rediffuse.detection.calibration import Calibration, Thresholds, choose_thresholds, fit_calibration
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


probabilities = st.lists(st.floats(0, 1), min_size=5, max_size=60)


@given(real=probabilities, generated=probabilities, rate=st.floats(0.01, 0.3))
def test_no_more_than_the_stated_share_of_either_class_is_decided_wrongly(real, generated, rate):
    thresholds = choose_thresholds(np.repeat([0, 1], [len(real), len(generated)]), np.array(real + generated), rate)
    assert np.mean([thresholds.decide(p) == "generated" for p in real]) <= rate
    assert np.mean([thresholds.decide(p) == "real" for p in generated]) <= rate


def test_overlapping_classes_leave_a_zone_that_is_unsure():
    labels = np.repeat([0, 1], 100)
    thresholds = choose_thresholds(labels, np.concatenate([np.linspace(0, 0.8, 100), np.linspace(0.2, 1, 100)]))
    assert 0.2 < thresholds.real < 0.3 < 0.7 < thresholds.generated < 0.8
    assert [thresholds.decide(p) for p in (0.1, 0.5, 0.9)] == ["real", "unsure", "generated"]


def test_thresholds_that_cross_meet_in_the_middle():
    labels = np.repeat([0, 1], 100)
    thresholds = choose_thresholds(labels, np.concatenate([np.full(100, 0.2), np.full(100, 0.6)]))
    assert thresholds.real == thresholds.generated == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("real", "generated", "rate", "message"),
    [
        (0.6, 0.4, 0.05, r"^thresholds: real=0\.6 is above generated=0\.4$"),
        (0.4, 0.6, 0.5, r"^error_rate=0\.5: more than 0 and less than 0\.5 is allowed$"),
        (0.4, 0.6, 0, r"^error_rate=0: more than 0"),
    ],
)
def test_thresholds_that_make_no_sense_are_refused_with_their_values(real, generated, rate, message):
    with pytest.raises(ConfigError, match=message):
        Thresholds(real=real, generated=generated, error_rate=rate)


def test_exactly_the_stated_share_may_be_decided_wrongly():
    labels, probabilities = np.repeat([0, 1], 100), np.concatenate([np.linspace(0, 1, 100), np.linspace(0, 1, 100)])
    thresholds = choose_thresholds(labels, probabilities, 0.29)  # 0.29 * 100 is a little less than 29
    decisions = [thresholds.decide(p) for p in np.linspace(0, 1, 100)]
    assert (decisions.count("generated"), decisions.count("real")) == (29, 29)


def test_five_per_cent_may_be_decided_wrongly_unless_told_otherwise():
    labels, probabilities = np.repeat([0, 1], 100), np.tile(np.linspace(0, 1, 100), 2)
    assert choose_thresholds(labels, probabilities) == choose_thresholds(labels, probabilities, 0.05)


def test_no_logit_is_too_large_for_a_probability():
    assert Calibration(slope=2, offset=1).probabilities(np.array([-1e6, -0.5, 1e6])).tolist() == [0, 0.5, 1]
