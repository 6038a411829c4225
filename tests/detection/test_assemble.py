"""What calibration, thresholds and the limit of the familiarity of a detector are chosen from."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from detection.tiny import unsure_detector
from rediffuse.detection.assemble import UNCALIBRATED, LeftOutResults, assemble
from rediffuse.detection.calibration import fit_calibration
from rediffuse.detection.config import Limits
from rediffuse.detection.detector import Detector
from rediffuse.detection.labelled import LabelledImage
from rediffuse.detection.metrics import expected_calibration_error
from rediffuse.images.find import FoundImage
from sampling.tiny import unet

COUNT = 120
LABELS = np.arange(COUNT) % 2
GROUPS = [f"source{index // 2 % 30}" for index in range(COUNT)]  # 30 groups of each class
LOGITS = np.random.default_rng(0).normal(size=COUNT) + 2 * LABELS
DISTANCES = np.random.default_rng(1).uniform(size=COUNT)
LIMITS = Limits(max_false_alarms=0.2, max_misses=0.1, unfamiliar_rate=0.3)


def assembled(limits: Limits = LIMITS, num_kinds: int = 1) -> Detector:
    """A detector by these results, of which equal parts are of each kind."""
    images = [
        LabelledImage(FoundImage(Path(f"{index}.png"), f"{index}.png"), int(label), group)
        for index, (label, group) in enumerate(zip(LABELS, GROUPS, strict=True))
    ]
    kinds = np.arange(COUNT) // (COUNT // num_kinds)
    results = LeftOutResults(images=images, logits=LOGITS, distances=DISTANCES, kinds=kinds)
    parts = unsure_detector(unet())
    return assemble(parts.scorer, parts.familiarity, parts.settings, results, limits, {"seed": 3})


def test_the_parts_of_a_detector_are_those_it_is_assembled_of():
    detector, parts = assembled(), unsure_detector(unet())
    torch.testing.assert_close(detector.scorer.weight, parts.scorer.weight)
    assert detector.settings == parts.settings
    assert (detector.familiarity.centres == parts.familiarity.centres).all()


def test_calibration_and_its_error_are_those_of_all_results():
    detector = assembled(num_kinds=2)
    assert detector.calibration == fit_calibration(LABELS, LOGITS)
    errors = [
        expected_calibration_error(LABELS, each.probabilities(LOGITS)) for each in (UNCALIBRATED, detector.calibration)
    ]
    assert detector.training == {"seed": 3, "calibration_error": dict(zip(("before", "after"), errors, strict=True))}
    assert errors[0] != errors[1]


def test_left_out_probabilities_are_kept_by_class_and_group():
    left_out, probabilities = assembled().left_out, fit_calibration(LABELS, LOGITS).probabilities(LOGITS)
    assert left_out.real["source3"] == tuple(probabilities[[6, 66]])
    assert left_out.generated["source3"] == tuple(probabilities[[7, 67]])
    assert len(left_out.real) == len(left_out.generated) == 30
    assert left_out.copies is None


def test_copies_are_kept_beside_the_images_that_are_no_copies():
    left_out, probabilities = assembled(num_kinds=2).left_out, fit_calibration(LABELS, LOGITS).probabilities(LOGITS)
    assert left_out.real["source3"] == (probabilities[6],)
    assert left_out.copies is not None
    assert left_out.copies.real["source3"] == (probabilities[66],)
    assert left_out.copies.copies is None


def test_every_kind_of_copies_is_kept_in_its_order():
    left_out, probabilities = assembled(num_kinds=3).left_out, fit_calibration(LABELS, LOGITS).probabilities(LOGITS)
    first = left_out.copies
    assert first is not None
    assert first.copies is not None
    assert (first.real["source3"], first.copies.real["source10"]) == ((probabilities[66],), (probabilities[80],))


def test_each_threshold_has_its_own_limit():
    detector = assembled()
    assert detector.thresholds == detector.left_out.thresholds(0.2, 0.1)


def test_a_limit_that_the_images_do_not_support_becomes_the_smallest_one_that_they_do():
    detector = assembled(Limits(max_false_alarms=0.001, max_misses=0.002))
    assert (detector.thresholds.max_false_alarms, detector.thresholds.max_misses) == pytest.approx((1 / 31, 1 / 31))
    mixed = assembled(Limits(max_false_alarms=0.001, max_misses=0.1))
    assert mixed.thresholds == detector.left_out.thresholds(1 / 31, 0.1)


def test_a_group_of_one_class_is_another_one_than_that_of_the_same_name_of_the_other_class():
    # 60 groups of two images; with 30 groups of four the mean of the groups would allow another distance.
    limit = assembled().familiarity.limit
    rate = np.mean([DISTANCES[index] > limit for index in range(COUNT)])
    assert rate <= 0.3 < rate + 3 / COUNT


def test_the_rate_of_unfamiliar_images_moves_the_limit_of_the_distance():
    few, many = (assembled(replace(LIMITS, unfamiliar_rate=rate)).familiarity.limit for rate in (0.1, 0.4))
    assert np.mean(few < DISTANCES) == pytest.approx(0.1, abs=0.03)
    assert np.mean(many < DISTANCES) == pytest.approx(0.4, abs=0.03)
