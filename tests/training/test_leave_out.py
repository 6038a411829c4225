"""Folds hold whole groups of both classes; plans never fit what they leave out."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rediffuse.detection.labelled import LabelledImage
from rediffuse.errors import InputError
from rediffuse.images.find import FoundImage
from rediffuse.training.leave_out import MOST_FOLDS, assign_folds, plan_of_folds, plan_of_splits


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
    folds, may_fit = np.array([0, 0, 1, 1, 2, 2]), np.array([1, 0, 1, 0, 1, 0], bool)
    plan = plan_of_folds(folds, folds != 2, may_fit)
    assert plan.rows.tolist() == [True, False, True, False, False, False]
    assert [(np.flatnonzero(fit).tolist(), np.flatnonzero(left).tolist()) for fit, left in plan.fits] == [
        ([2], [0, 1]),
        ([0], [2, 3]),
    ]
    assert plan.left_out.tolist() == [True] * 4 + [False] * 2
    splits = plan_of_splits(may_fit)
    assert (splits.rows.tolist(), splits.left_out.tolist()) == (may_fit.tolist(), (~may_fit).tolist())
