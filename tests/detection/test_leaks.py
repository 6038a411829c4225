"""Folds, figures and statements of the audit, from facts and scores made by hand."""

from collections.abc import Sequence
from itertools import chain

import numpy as np
import pytest

from rediffuse.detection.leaks import (
    Difference,
    Leak,
    differences_of,
    fact_columns,
    forest_scores,
    linear_scores,
    measure_leak,
)
from rediffuse.detection.metrics import roc_auc
from rediffuse.images.facts import FileFacts

Folds = list[list[int]]


def measured(
    labels: np.ndarray, groups: Sequence[str], scores: np.ndarray | None = None, seed: int = 0
) -> tuple[Leak, Folds, Folds]:
    """The leak by these scores, and the files that were left out together: at random, and by group."""
    left_out: Folds = []

    def scores_of(columns: np.ndarray, of_columns: np.ndarray, others: np.ndarray) -> np.ndarray:
        np.testing.assert_array_equal(of_columns, labels[columns[:, 0]])
        assert sorted([*columns[:, 0], *others[:, 0]]) == list(range(len(labels)))
        left_out.append(others[:, 0].tolist())
        return np.zeros(len(others)) if scores is None else scores[others[:, 0]]

    leak = measure_leak(np.arange(len(labels))[:, None], labels, groups, scores_of, seed)
    return leak, left_out[:5], left_out[5:]


def test_every_file_is_left_out_once_at_random_by_seed_in_five_folds_of_equal_classes() -> None:
    labels = np.repeat([0, 1], [30, 20])
    leak, folds, by_group = measured(labels, ["same"] * 50)
    assert sorted(chain(*folds)) == list(range(50))
    assert [np.bincount(labels[fold]).tolist() for fold in folds] == [[6, 4]] * 5
    assert (leak.groups, by_group) == (None, [])  # neither class has two groups
    assert measured(labels, ["same"] * 50)[1] == folds != measured(labels, ["same"] * 50, seed=1)[1]


def test_no_group_is_divided_and_folds_are_about_equal() -> None:
    sizes = {"a": 10, "b": 9, "c": 8, "d": 3, "e": 2, "f": 1}
    real = [name for name, size in sizes.items() for _ in range(size)]
    groups = [*real, *["a"] * 5, *["b"] * 20, *["c"] * 5]  # those of another class are others
    labels = np.repeat([0, 1], [33, 30])
    _, _, folds = measured(labels, groups)
    assert len(folds) == 3  # the class with fewer groups has three
    assert sorted(chain(*folds)) == list(range(63))
    for label in (0, 1):
        places = [{groups[place] for place in fold if labels[place] == label} for fold in folds]
        assert all(places)
        assert sum(map(len, places)) == len(set(groups[:33] if label == 0 else groups[33:]))
    assert sorted(sum(labels[fold] == 0) for fold in folds) == [11, 11, 11]  # 10 + 1, 9 + 2, 8 + 3


def test_a_class_of_one_group_is_divided_at_random_and_there_are_at_most_five_folds() -> None:
    groups = [f"source{place % 8}" for place in range(40)] + ["one"] * 23
    for labels in (np.repeat([0, 1], [40, 23]), np.repeat([1, 0], [40, 23])):
        folds = measured(labels, groups)[2]
        of_one = [[place - 40 for place in fold if place >= 40] for fold in folds]
        assert sorted(map(len, of_one)) == [4, 4, 5, 5, 5]
        assert of_one != [list(range(start, 23, 5)) for start in range(5)]
        assert measured(labels, groups)[2] == folds != measured(labels, groups, seed=1)[2]


def test_an_auc_is_the_mean_over_folds_by_their_pairs_of_files() -> None:
    labels, rng = np.repeat([0, 1], [60, 40]), np.random.default_rng(0)
    groups = ["a"] * 10 + ["b"] * 50 + ["c"] * 30 + ["d"] * 10
    scores = rng.normal(size=100) + labels
    leak, by_file, by_group = measured(labels, groups, scores)
    assert leak.groups is not None
    assert measured(labels, groups, scores)[0] == leak  # also the intervals
    for interval, folds in ((leak.files, by_file), (leak.groups, by_group)):
        aucs = [roc_auc(labels[fold], scores[fold]) for fold in folds]
        pairs = [int(np.prod(np.bincount(labels[fold]))) for fold in folds]
        assert interval.value == pytest.approx(np.average(aucs, weights=pairs))
        assert interval.low < interval.value < interval.high
    assert sorted(np.prod(np.bincount(labels[fold])) for fold in by_group) == [100, 1500]


def test_the_interval_is_as_wide_as_folds_of_independent_scores_vary() -> None:
    labels, scores = np.tile([0, 1], 100), np.random.default_rng(0).random(200)
    interval = measured(labels, ["same"] * 200, scores)[0].files
    variance = 41 / (12 * 20 * 20) / 5  # of the AUC of 20 files of each class (Mann and Whitney 1947), in five folds
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * variance**0.5, rel=0.15)
    alike = measured(labels, ["same"] * 200)[0].files
    assert (alike.low, alike.value, alike.high) == (0.5, 0.5, 0.5)


def test_a_forest_finds_combinations_and_a_line_does_not() -> None:
    columns = np.random.default_rng(0).integers(0, 2, (200, 2))
    labels = columns[:, 0] ^ columns[:, 1]
    corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    assert forest_scores(columns, labels, corners).round().tolist() == [0, 1, 1, 0]
    assert np.ptp(linear_scores(columns, labels, corners)) < 0.3


def test_a_forest_does_not_learn_single_files_by_heart() -> None:
    columns, labels = np.arange(200)[:, None], np.random.default_rng(0).permutation(200) % 2
    assert roc_auc(labels, forest_scores(columns, labels, columns)) < 0.9


@pytest.mark.parametrize("scores_of", [forest_scores, linear_scores])
def test_scores_are_reproducible_and_rise_with_a_number_that_is_larger_in_generated_files(scores_of) -> None:
    labels = np.tile([0, 1], 100)
    columns = np.random.default_rng(0).normal(size=(200, 3)) + np.outer(labels, [3, 0, 0])
    others = np.array([[-1, 0, 0], [1.5, 0, 0], [4, 0, 0]])
    scores = scores_of(columns, labels, others)
    assert scores[0] < scores[1] < scores[2]
    np.testing.assert_array_equal(scores, scores_of(columns, labels, others))
    units, origin = np.array([1e4, 1e-4, 1]), np.array([5, 0, -1000])
    rescaled = scores_of(columns * units + origin, labels, others * units + origin)
    np.testing.assert_allclose(scores, rescaled, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("scores_of", "even"), [(forest_scores, 0.5), (linear_scores, 0)])
def test_a_class_of_more_files_is_not_preferred(scores_of, even: float) -> None:
    scores = scores_of(np.ones((100, 1)), np.repeat([0, 1], [90, 10]), np.ones((3, 1)))
    assert scores == pytest.approx([even] * 3, abs=0.15)


def facts(**changed: object) -> FileFacts:
    """A PNG of 40x32 pixels without metadata, except for what is changed."""
    none = dict.fromkeys(("quality", "tables", "subsampling", "bytes_per_pixel", "density"))
    false = dict.fromkeys(("progressive", "exif", "icc", "xmp", "text"), False)
    usual = {"codec": "PNG", "width": 40, "height": 32, "mode": "RGB", "bit_depth": 8} | none | false
    return FileFacts(**(usual | changed))


JPEG = facts(
    codec="JPEG",
    width=30,
    height=60,
    mode="L",
    bit_depth=12,
    quality=75,
    tables="ab",
    subsampling="4:2:0",
    progressive=True,
    bytes_per_pixel=0.5,
    density="72x72",
    exif=True,
    icc=True,
    xmp=True,
    text=True,
)


def test_columns_are_the_numbers_of_files_and_the_frequent_values_of_their_categories() -> None:
    columns = fact_columns([facts(), JPEG, facts()])
    assert columns.dtype == np.float32
    numbers = [[32, 40, 1.25, -1, -1], [30, 60, 0.5, 75, 0.5], [32, 40, 1.25, -1, -1]]  # -1 is missing
    np.testing.assert_array_equal(columns[:, :5], numbers)
    np.testing.assert_array_equal(columns[:, 5:], [[1, 0] * 12, [0, 1] * 12, [1, 0] * 12])


def test_the_twelve_most_frequent_values_of_a_category_have_a_column() -> None:
    densities = [f"{number}x{number}" for number in range(14) for _ in range(14 - number)]
    columns = fact_columns([facts(density=density) for density in densities])
    assert columns.shape == (len(densities), 5 + 11 + 12)
    assert columns[:, 5:].sum(axis=0).tolist() == [105] * 6 + [*range(14, 2, -1)] + [105] * 5


def stated(files: Sequence[FileFacts], labels: np.ndarray) -> list[tuple[str, float, float]]:
    return [(one.statement, one.real, one.generated) for one in differences_of(files, labels)]


def test_every_fact_has_its_strongest_statement_and_the_strongest_fact_is_first() -> None:
    labels = np.repeat([0, 1], 100)
    real = [facts(width=400 if place < 70 else 300) for place in range(100)]
    generated = [facts(width=400, mode="L" if place < 55 else "P") for place in range(100)]
    assert stated([*real, *generated], labels) == [
        ("the colour mode is RGB", 1, 0),
        ("the size is 400x32 px", 0.7, 1),
        ("the long side in pixels is at most 300", 0.3, 0),
        ("width divided by height is at most 9.375", 0.3, 0),
    ]


@pytest.mark.parametrize(
    ("num_real", "num_generated", "most_by_chance"), [(40, 40, 17), (40, 160, 55), (160, 40, 13), (1000, 1000, 100)]
)
def test_a_difference_is_stated_if_chance_makes_one_so_large_in_a_thousand(
    num_real: int, num_generated: int, most_by_chance: int
) -> None:
    """The two-sample test of Kolmogorov and Smirnov; of many files at least a tenth must differ."""
    labels = np.repeat([0, 1], [num_real, num_generated])
    for count in (most_by_chance, most_by_chance + 1):
        files = [facts()] * num_real + [facts(exif=place < count) for place in range(num_generated)]
        expected = [("there is EXIF metadata", 0, count / num_generated)] if count > most_by_chance else []
        assert stated(files, labels) == expected


@pytest.mark.parametrize(
    ("changed", "statement"),
    [
        ({"codec": "GIF"}, "the format is PNG"),
        ({"mode": "L"}, "the colour mode is RGB"),
        ({"bit_depth": 16}, "the bit depth is 8"),
        ({"tables": "ab", "quality": 75}, "the JPEG has the quantisation tables ab (quality 75)"),
        ({"subsampling": "4:2:0"}, "the JPEG has colour planes in 4:2:0"),
        ({"density": "72x72"}, "the density is given as 72x72"),
        ({"progressive": True}, "it is progressive or interlaced"),
        ({"exif": True}, "there is EXIF metadata"),
        ({"icc": True}, "there is an ICC profile"),
        ({"xmp": True}, "there are XMP metadata"),
        ({"text": True}, "there is text in the file"),
    ],
)
def test_a_category_of_one_class_is_stated_in_words(changed: dict[str, object], statement: str) -> None:
    files, labels = [facts()] * 40 + [facts(**changed)] * 30 + [facts()] * 10, np.repeat([0, 1], 40)
    usual = statement.endswith(("PNG", "RGB", "8"))  # the value that more files have is named
    assert stated(files, labels)[0] == (statement, *((1, 0.25) if usual else (0, 0.75)))
    assert stated(files, 1 - labels)[0] == (statement, *((0.25, 1) if usual else (0.75, 0)))


@pytest.mark.parametrize(
    ("low", "high", "statement"),
    [
        ({"height": 32}, {"height": 38}, "the short side in pixels is at most 32"),
        ({"width": 40}, {"width": 50}, "the long side in pixels is at most 40"),
        ({"width": 40}, {"width": 48}, "width divided by height is at most 1.25"),
        ({"quality": 75}, {"quality": 76}, "the JPEG quality, estimated from the quantisation tables, is at most 75"),
        ({"bytes_per_pixel": 1 / 3}, {"bytes_per_pixel": 0.5}, "the file size in bytes per pixel is at most 0.3333"),
    ],
)
def test_a_number_that_is_smaller_in_one_class_is_stated_with_the_limit_of_the_largest_difference(
    low: dict[str, object], high: dict[str, object], statement: str
) -> None:
    files = [facts(**high)] * 40 + [facts(**low)] * 30 + [facts(**high)] * 10
    assert (statement, 0, 0.75) in stated(files, np.repeat([0, 1], 40))


def test_limits_of_a_number_are_a_hundred_of_the_values_that_occur() -> None:
    files = [facts(width=first + 3 * place) for first in (100, 251) for place in range(100)]
    found = [each for each in stated(files, np.repeat([0, 1], 100)) if each[0].startswith("the long side")]
    assert found == [("the long side in pixels is at most 250", 0.51, 0)]


def test_a_number_that_few_files_of_a_class_have_is_not_stated() -> None:
    for num_known in (0, 19, 20):
        files = [facts(quality=90)] * 40 + [facts(quality=50)] * num_known + [facts()] * 20
        labels = np.repeat([0, 1], [40, 20 + num_known])
        statement = ("the JPEG quality, estimated from the quantisation tables, is at most 50", 0, 1)
        assert (statement in stated(files, labels)) == (num_known == 20)


def test_the_twelve_most_frequent_values_are_stated() -> None:
    real = [facts(density=f"{place // 50}") for place in range(600)]
    for number in (49, 51):
        found = stated([*real, *[facts(density="rare")] * number], np.repeat([0, 1], [600, number]))
        assert (("the density is given as rare", 0, 1) in found) == (number == 51)


def test_a_statement_in_words() -> None:
    assert str(Difference(statement="the format is PNG", real=0.254, generated=1)) == (
        "the format is PNG: 100% of the generated files, 25% of the real ones"
    )
