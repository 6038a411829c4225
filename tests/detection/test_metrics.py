import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from rediffuse.detection import metrics
from rediffuse.detection.metrics import (
    Interval,
    auc_change,
    auc_interval,
    bootstrap_aucs,
    expected_calibration_error,
    figures,
    group_auc_interval,
    mean_auc,
    roc_auc,
    tpr_at_fpr,
)


def two_gaussians(num_real: int, num_generated: int, shift: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    labels = np.repeat([0, 1], [num_real, num_generated])
    return labels, np.random.default_rng(seed).normal(size=len(labels)) + shift * labels


def test_auc_and_tpr_approach_the_values_of_two_gaussians():
    labels, scores = two_gaussians(20_000, 20_000, shift=1.5)
    assert roc_auc(labels, scores) == pytest.approx(norm.cdf(1.5 / np.sqrt(2)), abs=0.01)
    assert tpr_at_fpr(labels, scores, 0.05) == pytest.approx(norm.cdf(1.5 - norm.isf(0.05)), abs=0.02)


def test_bootstrap_interval_matches_the_slow_bootstrap():
    labels, scores = two_gaussians(60, 40, shift=1)
    scores = scores.round(1)  # ties
    generator = np.random.default_rng(1)
    slow = []
    for _ in range(400):
        real, generated = generator.choice(scores[labels == 0], 60), generator.choice(scores[labels == 1], 40)
        slow.append((generated[:, None] > real).mean() + (generated[:, None] == real).mean() / 2)
    interval = auc_interval(labels, scores)
    assert [interval.low, interval.high] == pytest.approx(np.quantile(slow, [0.025, 0.975]), abs=0.02)
    assert interval.value == roc_auc(labels, scores)


def test_bootstrap_interval_covers_the_truth_as_often_as_it_says():
    truth = norm.cdf(1 / np.sqrt(2))
    intervals = [auc_interval(*two_gaussians(50, 50, 1, seed), resamples=200) for seed in range(120)]
    assert 0.88 <= np.mean([interval.low <= truth <= interval.high for interval in intervals]) <= 0.99


def test_bootstrap_interval_repeats_itself():
    data = two_gaussians(30, 30, 1)
    assert auc_interval(*data) == auc_interval(*data, resamples=2000, seed=0) != auc_interval(*data, seed=1)
    by_group = (*data, ids(data[0]))
    usual = group_auc_interval(*by_group)
    assert usual == group_auc_interval(*by_group, resamples=2000, seed=0) != group_auc_interval(*by_group, seed=1)


@given(st.integers(1, 5))
def test_repeating_one_class_changes_only_its_count(copies: int):
    labels, scores = two_gaussians(30, 20, shift=1)
    probabilities = 1 / (1 + np.exp(-scores))
    more = np.concatenate([labels == 1] * copies + [labels == 0])
    order = np.concatenate([np.arange(50)] * (copies + 1))
    once, often = (
        figures(labels, probabilities, ids(labels)),
        figures(labels[order][more], probabilities[order][more], ids(labels)[order][more]),
    )
    assert often.num_generated == copies * once.num_generated
    for name in ("average_precision", "accuracy", "tpr_at_5_percent_fpr", "calibration_error"):
        assert getattr(often, name) == pytest.approx(getattr(once, name))


def test_calibration_error_is_the_gap_between_probability_and_frequency():
    labels = np.repeat([0, 1, 0, 1], [80, 20, 20, 80])  # half of each class
    honest, boastful = np.repeat([0.2, 0.8], 100), np.repeat([0.0, 1.0], 100)
    assert expected_calibration_error(labels, honest) == pytest.approx(0)
    assert expected_calibration_error(labels, boastful) == pytest.approx(0.2)


def test_figures_of_six_images_are_those_counted_by_hand():
    labels, probabilities = np.array([0, 0, 0, 0, 1, 1]), np.array([0.1, 0.4, 0.6, 0.2, 0.5, 0.9])
    counted = figures(labels, probabilities, ids(labels))
    assert (counted.num_real, counted.num_generated) == (4, 2)
    assert counted.auc.value == 7 / 8  # of eight pairs, only 0.5 against 0.6 is in the wrong order
    assert counted.accuracy == (3 / 4 + 2 / 2) / 2  # 0.5 counts as generated
    assert (counted.real_accuracy, counted.generated_accuracy) == (3 / 4, 1)
    assert counted.brier == pytest.approx(((0.01 + 0.16 + 0.36 + 0.04) / 4 + (0.25 + 0.01) / 2) / 2)
    assert counted.average_precision == pytest.approx((1 + 1 / (1 + 1 / 4)) / 2)  # a real image weighs half as much
    gaps = np.array([-0.1, -0.4, -0.6, -0.2, 2 * 0.5, 2 * 0.1]) / 8
    assert counted.calibration_error == pytest.approx(np.abs(gaps).sum())  # each lies in a bin of its own


def test_shares_found_are_those_at_one_and_at_five_false_alarms_in_a_hundred():
    labels = np.repeat([0, 1], [100, 4])
    probabilities = np.concatenate([np.zeros(93), [0.55, 0.62, 0.65, 0.75, 0.75, 0.75, 0.85], [0.6, 0.7, 0.8, 0.9]])
    counted = figures(labels, probabilities, ids(labels))
    assert (counted.tpr_at_1_percent_fpr, counted.tpr_at_5_percent_fpr) == (0.5, 0.75)
    assert tpr_at_fpr(labels, probabilities, 0.03) == 0.5  # three real images share a score: all of them or none


def test_scores_that_two_classes_share_are_found_and_called_falsely_together():
    labels, scores = np.tile([0, 1], 100), np.repeat(np.arange(100), 2)
    assert tpr_at_fpr(labels, scores, 0.05) == 0.05


def test_bins_of_the_calibration_error_are_as_many_as_asked_for_and_hold_certainty():
    labels, probabilities = np.array([0, 1]), np.array([1.0, 0.95])
    assert expected_calibration_error(labels, probabilities, num_bins=10) == pytest.approx(0.475)
    assert expected_calibration_error(labels, probabilities, num_bins=1) == pytest.approx(0.475)
    assert expected_calibration_error(labels, np.array([0.62, 0.64])) == pytest.approx(
        0.13
    )  # one bin: 9 / 15 to 10 / 15
    assert expected_calibration_error(labels, np.array([0.62, 0.64]), num_bins=100) == pytest.approx(0.49)


def test_more_distinct_scores_than_fit_into_memory_are_resampled_in_blocks():
    labels, scores = two_gaussians(2000, 2000, shift=1)
    aucs = bootstrap_aucs(labels, scores, resamples=1100, seed=0)  # 1,000 of them are one block
    for block in (aucs[:1000], aucs[1000:]):
        assert block.mean() == pytest.approx(roc_auc(labels, scores), abs=0.003)
        assert block.std() == pytest.approx(aucs.std(), rel=0.3)


def test_interval_holds_95_percent_of_the_resamples():
    labels, scores = two_gaussians(40, 30, 1)
    aucs = bootstrap_aucs(labels, scores, resamples=300, seed=3)
    interval = auc_interval(labels, scores, resamples=300, seed=3)
    assert [interval.low, interval.high] == pytest.approx(np.quantile(aucs, [0.025, 0.975]))
    assert str(Interval(value=0.98765, low=0.9, high=1)) == "0.988 [0.900, 1.000]"


def test_every_pair_of_collections_counts_alike_in_the_mean_auc():
    labels, scores = np.array([0, 0, 0, 1, 1, 1, 1]), np.array([0.2, 0.8, 0.95, 0.9, 0.9, 0.9, 0.5])
    collections = np.array(["photos", "photos", "scans", "flux", "flux", "flux", "sdxl"])
    assert mean_auc(labels, scores, collections) == (1 + 0.5 + 0 + 0) / 4
    three = np.append(collections, "adm")  # all collections but one are not that one
    assert mean_auc(np.append(labels, 1), np.append(scores, 0.9), three) == (1 + 0.5 + 0 + 0 + 1 + 0) / 6


def ids(labels: np.ndarray) -> np.ndarray:
    """A group for each image."""
    return np.arange(len(labels)).astype(str)


def test_an_interval_over_groups_of_one_image_is_that_over_images():
    labels, scores = two_gaussians(200, 150, 1)
    by_image, by_group = auc_interval(labels, scores), group_auc_interval(labels, scores, ids(labels))
    assert by_group.value == by_image.value
    assert [by_group.low, by_group.high] == pytest.approx([by_image.low, by_image.high], abs=0.01)
    assert group_auc_interval(labels, scores, np.full(350, "one")) == by_image


def test_a_class_of_one_group_is_resampled_by_image_with_the_given_seed():
    labels, scores = two_gaussians(40, 30, 1)
    groups = np.where(labels == 0, "camera", ids(labels))
    by_group = group_auc_interval(labels, scores, groups, resamples=50, seed=3)
    assert by_group == auc_interval(labels, scores, resamples=50, seed=3)


@pytest.mark.parametrize("label", [0, 1])
def test_a_class_of_more_groups_than_the_limit_is_resampled_by_image(label: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(metrics, "MOST_GROUPS", 3)
    labels, scores = two_gaussians(30, 30, 1)
    for number in (3, 4):
        groups = (np.arange(60) % np.where(labels == label, number, 2)).astype(str)
        is_by_image = group_auc_interval(labels, scores, groups) == auc_interval(labels, scores)
        assert is_by_image == (number > 3)


def test_two_groups_of_a_class_are_resampled_by_group():
    labels, scores = np.repeat([0, 1], 10), np.repeat([0.0, 0.6, 0.4, 0.7], 5)
    interval = group_auc_interval(labels, scores, np.repeat(["a", "b", "c", "d"], 5))
    assert (interval.low, interval.value, interval.high) == (0, 0.75, 1)  # all of one group, against all of another


def test_images_that_are_repeated_within_their_group_do_not_narrow_the_interval():
    labels, scores = two_gaussians(60, 50, 1)
    once = group_auc_interval(labels, scores, ids(labels))
    often = group_auc_interval(np.repeat(labels, 9), np.repeat(scores, 9), np.repeat(ids(labels), 9))
    assert [often.low, often.value, often.high] == pytest.approx([once.low, once.value, once.high])


def test_a_change_of_the_auc_is_that_of_the_same_resampled_images():
    labels, before = two_gaussians(60, 40, shift=1)
    after = before + np.random.default_rng(1).normal(size=100) - 0.5 * labels
    wins = [np.greater.outer(scores[labels == 1], scores[labels == 0]).astype(int) for scores in (before, after)]
    generator = np.random.default_rng(2)
    drawn = [np.ix_(generator.choice(40, 40), generator.choice(60, 60)) for _ in range(400)]
    slow = [(wins[1] - wins[0])[images].mean() for images in drawn]
    interval = auc_change(labels, before, after)
    assert interval.value == pytest.approx(roc_auc(labels, after) - roc_auc(labels, before))
    assert [interval.low, interval.high] == pytest.approx(np.quantile(slow, [0.025, 0.975]), abs=0.02)
    assert interval == auc_change(labels, before, after)
    same = auc_change(labels, before, 2 * before)
    assert (same.low, same.value, same.high) == (0, 0, 0)


def test_ties_between_groups_count_half():
    labels, scores = np.array([0, 0, 1, 1]), np.array([0.5, 0.5, 0.5, 0.5])
    interval = group_auc_interval(labels, scores, np.array(["a", "b", "c", "d"]))
    assert (interval.low, interval.value, interval.high) == (0.5, 0.5, 0.5)
