"""Thresholds from left-out scores: what they promise, what they refuse, and that the promise holds on new groups."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rediffuse.detection.left_out import ENOUGH, LeftOut, by_group, collection_of, first_error
from rediffuse.errors import ConfigError

scores = st.dictionaries(
    st.sampled_from([f"{collection}/{group}" for collection in "abc" for group in range(20)]),
    st.lists(st.floats(0, 1), min_size=1, max_size=5).map(tuple),
    min_size=ENOUGH,
)


def many(low: float, high: float, groups: int = 40, images: int = 5) -> dict[str, tuple[float, ...]]:
    """Groups with the same evenly spread scores."""
    return {f"group{number}": tuple(np.linspace(low, high, images)) for number in range(groups)}


@given(scores=scores, limit=st.floats(0.05, 0.4))
def test_the_error_rate_is_within_the_limit_for_the_next_group_and_in_the_mean_of_collections(scores, limit):
    threshold = np.nextafter(first_error(scores, limit), np.inf)
    rates = {name: np.mean(np.array(group) >= threshold) for name, group in scores.items()}
    assert (sum(rates.values()) + 1) / (len(rates) + 1) <= limit + 1e-6
    collections = {
        name: [r for n, r in rates.items() if collection_of(n) == name] for name in map(collection_of, rates)
    }
    assert np.mean([np.mean(each) for each in collections.values()]) <= limit + 1e-6


@given(scores=scores, limit=st.floats(0.05, 0.4))
def test_no_lower_threshold_is_within_the_limit(scores, limit):
    threshold = first_error(scores, limit)
    rates = {name: np.mean(np.array(group) >= threshold) for name, group in scores.items()}
    collections = {
        name: [r for n, r in rates.items() if collection_of(n) == name] for name in map(collection_of, rates)
    }
    mean = np.mean([np.mean(each) for each in collections.values()])
    assert max((sum(rates.values()) + 1) / (len(rates) + 1), mean) > limit


@given(scores=scores, score=st.floats(0, 1))
def test_a_score_is_as_common_as_the_error_bound_of_a_threshold_at_it(scores, score):
    left_out = LeftOut(real=scores, generated=scores)
    bound = left_out.bound("real", score, 0.05)
    rates = {name: np.mean(np.array(group) >= score) for name, group in scores.items()}
    assert bound.share >= (sum(rates.values()) + 1) / (len(rates) + 1) - 1e-9
    assert (bound.limit, bound.is_for_unseen, bound.num_groups) == (0.05, True, len(scores))
    assert bound.num_images == sum(map(len, scores.values()))
    below = {name: np.mean(np.array(group) <= score) for name, group in scores.items()}
    assert left_out.bound("generated", score, 0.05).share >= (sum(below.values()) + 1) / (len(below) + 1) - 1e-9


@pytest.mark.parametrize("limit", [0.05, 0.2])
def test_no_image_that_is_called_generated_is_more_common_than_the_limit(limit):
    left_out = LeftOut(real=many(0, 0.8), generated=many(0.2, 1))
    thresholds = left_out.thresholds(limit, limit)
    assert left_out.bound("real", thresholds.generated, limit).share <= limit
    assert left_out.bound("generated", np.nextafter(thresholds.real, 0), limit).share <= limit
    assert left_out.bound("real", 1.0, limit).share == pytest.approx(1 / 41)  # no score is as high: one group in 41


def test_on_groups_that_differ_the_limit_holds_for_new_groups_on_average():
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(2000):
        centres = rng.normal(size=31)  # 30 known groups, and a new one
        known = {f"{k}": tuple(centre + 0.3 * rng.normal(size=10)) for k, centre in enumerate(centres[:-1])}
        errors.append(centres[-1] + 0.3 * rng.normal() > first_error(known, 0.1))
    assert 0.06 < np.mean(errors) < 0.11
    pooled = [np.quantile(rng.normal(size=1) + 0.3 * rng.normal(size=300), 0.9) for _ in range(2000)]
    assert np.mean(rng.normal(size=2000) > pooled) > 0.2  # one group of as many images promises too much


def test_a_collection_of_many_groups_does_not_outvote_one_large_group():
    groups = {f"previews/{k}": (0.1,) for k in range(70)} | {"flux": tuple(np.linspace(0, 1, 100))}
    assert first_error(groups, 0.05) == pytest.approx(0.9, abs=0.011)  # half of the 5 % is 10 % of flux


def test_with_few_groups_single_images_count_and_the_limit_is_for_the_same_groups():
    few = {"a": tuple(np.linspace(0, 1, 50)), "b": tuple(np.linspace(0, 1, 50))}
    left_out = LeftOut(real=few, generated=many(0, 1))
    assert (left_out.is_for_unseen("real"), left_out.is_for_unseen("generated")) == (False, True)
    assert left_out.smallest_limit("real") == pytest.approx(1 / 101)
    assert left_out.smallest_limit("generated") == pytest.approx(1 / 41)
    threshold = left_out.thresholds(0.1, 0.1).generated
    errors = sum(score >= threshold for group in few.values() for score in group)
    assert (errors + 1) / 101 <= 0.1 < (errors + 3) / 101  # both groups have the same scores


def test_overlapping_classes_leave_a_zone_that_is_unsure():
    thresholds = LeftOut(real=many(0, 0.8, images=100), generated=many(0.2, 1, images=100)).thresholds(0.05, 0.05)
    assert 0.2 < thresholds.real < 0.3 < 0.7 < thresholds.generated < 0.8
    assert [thresholds.decide(p) for p in (0.1, 0.5, 0.9)] == ["real", "unsure", "generated"]


def test_thresholds_that_cross_meet_in_the_middle():
    thresholds = LeftOut(real=many(0.2, 0.2), generated=many(0.6, 0.6)).thresholds(0.05, 0.05)
    assert thresholds.real == thresholds.generated == pytest.approx(0.4)


def test_each_limit_moves_its_own_threshold():
    left_out = LeftOut(real=many(0, 0.8, images=100), generated=many(0.2, 1, images=100))
    usual, strict = left_out.thresholds(0.05, 0.05), left_out.thresholds(0.03, 0.2)
    assert strict.generated > usual.generated
    assert strict.real > usual.real
    assert (strict.max_false_alarms, strict.max_misses) == (0.03, 0.2)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ((0.5, 0.05), r"^max_false_alarms=0\.5: more than 0 and less than 0\.5 is allowed$"),
        ((0.05, 0.0), r"^max_misses=0\.0: more than 0"),
        (
            (0.001, 0.05),
            r"^max_false_alarms=0\.001: needs 999 groups of photographs that were left out; there are 200 images in 40 "
            r"groups: the smallest limit that holds for unseen groups is 0\.0244$",
        ),
        ((0.05, 0.001), r"^max_misses=0\.001: needs 999 images of generated images .* the same groups is 0\.00662$"),
    ],
)
def test_a_limit_that_the_scores_do_not_support_is_refused_with_what_is_missing(limits, message):
    left_out = LeftOut(real=many(0, 1), generated={"a": tuple(np.linspace(0, 1, 150))})
    with pytest.raises(ConfigError, match=message):
        left_out.thresholds(*limits)


@pytest.mark.parametrize(
    ("real", "message"),
    [
        ({}, r"^left_out: no scores of photographs; at least 1 is needed$"),
        ({"a": (0.5, float("nan"))}, r"^left_out: real/a has the score nan; from 0 to 1 are allowed$"),
        ({"a": (1.5,)}, r"^left_out: real/a has the score 1\.5; from 0 to 1 are allowed$"),
    ],
)
def test_scores_that_are_none_are_refused_with_their_group(real, message):
    with pytest.raises(ConfigError, match=message):
        LeftOut(real=real, generated={"b": (0.5,)})


def test_scores_are_grouped_in_their_order_and_groups_by_name():
    assert by_group(["b", "a", "b"], [0.1, 0.2, 0.3]) == {"a": (0.2,), "b": (0.1, 0.3)}
    assert list(by_group(["b", "a", "b"], [0.1, 0.2, 0.3])) == ["a", "b"]


def test_limits_hold_for_images_and_for_their_copies_each_alone():
    copies = LeftOut(real=many(0.4, 0.6), generated=many(0.2, 1))
    both = LeftOut(real=many(0, 0.8), generated=many(0.7, 1), copies=copies)
    assert both.thresholds(0.05, 0.05).generated == replace(both, copies=None).thresholds(0.05, 0.05).generated
    assert both.thresholds(0.05, 0.05).real == copies.thresholds(0.05, 0.05).real
    blurred = LeftOut(real=many(0.3, 0.5), generated=many(0.1, 1))
    three = replace(both, copies=replace(copies, copies=blurred))
    assert three.parts == [three, three.copies, blurred]
    assert three.thresholds(0.05, 0.05).real == blurred.thresholds(0.05, 0.05).real
    assert three.bound("generated", 0.3, 0.05).share == blurred.bound("generated", 0.3, 0.05).share
    own = both.with_own({"real": many(0.1, 0.3)})
    assert own.thresholds(0.05, 0.3) == LeftOut(real=many(0.1, 0.3), generated=copies.generated).thresholds(0.05, 0.3)


@pytest.mark.parametrize("score", [0.41, 0.7])
def test_a_score_is_as_common_as_among_images_or_among_copies_whichever_is_more(score):
    images, copies = (LeftOut(real=many(*ends), generated=many(*ends)) for ends in ((0, 0.8), (0.4, 0.6)))
    for label in ("real", "generated"):
        shares = [each.bound(label, score, 0.05).share for each in (images, copies)]
        assert shares[0] != shares[1]
        assert replace(images, copies=copies).bound(label, score, 0.05).share == max(shares)
