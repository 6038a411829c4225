"""Folds hold whole groups of both classes; plans never fit what they leave out."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rediffuse.detection.labelled import LabelledImage
from rediffuse.errors import InputError
from rediffuse.images.find import FoundImage
from rediffuse.training.leave_out import MOST_FOLDS, Fit, assign_folds, left_out, plan_of_folds, plan_of_splits


def images(sizes: dict[str, int]) -> list[LabelledImage]:
    """Images of groups such as `real/clothing/sender1`, by the number of images."""
    found = []
    for place, size in sizes.items():
        name, _, group = place.partition("/")
        for number in range(size):
            image = FoundImage(Path(str(number)), f"{place}/{number}.png")
            found.append(LabelledImage(image, int(name == "generated"), group or name))
    return found


groups = st.lists(st.integers(1, 9), min_size=3, max_size=20)


@given(real=groups, generated=groups)
def test_no_group_of_photographs_and_no_collection_of_generators_is_in_two_folds(real, generated):
    data = images(
        {f"real/photos/{k}": n for k, n in enumerate(real)} | {f"generated/g{k}/x": n for k, n in enumerate(generated)}
    )
    folds = assign_folds(data)
    assert 3 <= len(set(folds)) == min(MOST_FOLDS, len(real), len(generated))
    for label in (0, 1):
        assert {folds[k] for k, image in enumerate(data) if image.label == label} == set(range(folds.max() + 1))
    for unit in {image.group for image in data}:
        assert len({folds[k] for k, image in enumerate(data) if image.group == unit}) == 1


def test_generators_of_one_collection_are_left_out_together():
    data = images({f"real/{k}": 2 for k in range(4)} | {f"generated/{c}/{k}": 1 for c in "abc" for k in range(4)})
    folds = assign_folds(data)
    for collection in "abc":
        assert len({folds[k] for k, image in enumerate(data) if image.collection == collection}) == 1


def test_a_class_of_one_group_is_left_out_image_by_image():
    data = images({"real": 9, "generated/a": 3, "generated/b": 3, "generated/c": 3})
    folds = assign_folds(data)
    assert np.bincount(folds[:9]).tolist() == [3, 3, 3]


def test_fewer_than_three_images_of_a_class_are_refused_with_the_numbers():
    with pytest.raises(InputError, match=r"^5 and 2 real and generated images: at least 3 of each are needed$"):
        assign_folds(images({"real": 5, "generated": 2}))


def test_plans_fit_only_what_they_may_and_leave_out_every_row_once():
    data = images({"real/a/1": 2, "real/a/2": 2, "real/b": 2, "generated/c": 2, "generated/d": 2})
    folds, may_fit = np.array([0, 0, 1, 1, 2, 2, 0, 0, 1, 1]), np.array([1, 0] * 5, bool)
    plan = plan_of_folds(data, folds, folds != 2, may_fit)
    assert plan.rows.tolist() == [True, False, True, False, False, False, True, False, True, False]
    assert numbers(plan.fits) == [([2, 8], [0, 1, 6, 7]), ([0, 6], [2, 3, 8, 9])]
    assert left_out(plan.fits).tolist() == (folds != 2).tolist()
    splits = plan_of_splits(may_fit)
    assert splits.fits == splits.fits_to_choose
    assert (splits.rows.tolist(), left_out(splits.fits).tolist()) == (may_fit.tolist(), (~may_fit).tolist())


def test_candidates_are_compared_on_whole_collections_of_photographs_too():
    data = images({"real/a/1": 1, "real/a/2": 1, "real/b/1": 1, "generated/c": 1, "generated/d": 1})
    plan = plan_of_folds(data, np.array([0, 1, 1, 0, 1]), np.ones(5, bool), np.ones(5, bool))
    assert numbers(plan.fits_to_choose) == [
        ([2, 3, 4], [0, 1]),
        ([0, 1, 3, 4], [2]),
        ([0, 1, 2, 4], [3]),
        ([0, 1, 2, 3], [4]),
    ]


@pytest.mark.parametrize("num_collections", [1, MOST_FOLDS + 1])
def test_of_one_collection_or_very_many_the_part_in_one_fold_is_left_out(num_collections: int):
    photographs = {f"real/c{k % num_collections}/{k}": 1 for k in range(MOST_FOLDS + 1)}
    data = images(photographs | {"generated/a": 1, "generated/b": 1})
    folds = np.array([k % 2 for k in range(len(data))])
    plan = plan_of_folds(data, folds, np.ones(len(data), bool), np.ones(len(data), bool))
    real = folds[: MOST_FOLDS + 1]
    assert [left for _, left in numbers(plan.fits_to_choose)][:2] == [
        np.flatnonzero(real == k).tolist() for k in (0, 1)
    ]


def numbers(fits: Sequence[Fit]) -> list[tuple[list[int], list[int]]]:
    return [(np.flatnonzero(fit).tolist(), np.flatnonzero(left).tolist()) for fit, left in fits]
