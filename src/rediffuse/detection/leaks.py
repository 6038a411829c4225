"""What reveals the class of a file: cross-validated AUCs of simple classifiers, and statements about the files."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from rediffuse.detection.familiarity import feature_scale
from rediffuse.detection.metrics import Interval, bootstrap_aucs, percentile_interval, roc_auc
from rediffuse.images.facts import FileFacts

FEWEST = 20
"""Smallest number of files of a class for which an AUC is computed."""
REVEALS = 0.55
"""The class is revealed if the whole interval of the AUC lies above this."""
UNDECIDED = 0.65
"""More files are needed if the interval of the AUC reaches this, and does not lie above `REVEALS`."""
_FOLDS = 5
_FREQUENT = 12
"""The most frequent values of a fact have a column each in the classifier's input; the others have none."""

_Scores = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Columns (N, F) and labels (N,) to fit a classifier to, columns (M, F) of other files; gives their scores (M,)."""


@dataclass(frozen=True, kw_only=True)
class Leak:
    """How well the class can be predicted from something that should not reveal it: a cross-validated AUC.

    The intervals (95 %) are bootstrapped over files, also where groups are left out.
    """

    files: Interval
    """Files left out at random."""
    groups: Interval | None = None
    """Whole groups of both classes left out; None if neither class has two groups."""

    @property
    def intervals(self) -> tuple[Interval, ...]:
        return (self.files,) if self.groups is None else (self.files, self.groups)

    @property
    def reveals_class(self) -> bool:
        return any(interval.low > REVEALS for interval in self.intervals)

    @property
    def is_undecided(self) -> bool:
        """Whether there are too few files to say."""
        return not self.reveals_class and self.files.high > UNDECIDED

    @property
    def worst(self) -> Interval:
        """The AUC with the higher lower bound."""
        return max(self.intervals, key=lambda interval: interval.low)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A statement about a file that is true more often in one class than in the other."""

    statement: str
    real: float
    """Share of the real files for which it is true."""
    generated: float
    """Share of the generated files for which it is true."""

    def __str__(self) -> str:
        return f"{self.statement}: {self.generated:.0%} of the generated files, {self.real:.0%} of the real ones"


def measure_leak(columns: np.ndarray, labels: np.ndarray, groups: Sequence[str], scores_of: _Scores, seed: int) -> Leak:
    by_group = _group_folds(labels, groups, seed)
    return Leak(
        files=_left_out(columns, labels, _file_folds(labels, seed), scores_of),
        groups=None if by_group is None else _left_out(columns, labels, by_group, scores_of),
    )


def _left_out(columns: np.ndarray, labels: np.ndarray, folds: np.ndarray, scores_of: _Scores) -> Interval:
    """The cross-validated AUC: the mean over folds, weighted by their pairs of a real and a generated file.

    The scores of different folds come from different classifiers and are not comparable, so they are not pooled.
    """
    value, resampled, num_pairs = 0.0, np.zeros(1), 0
    for fold in range(folds.max() + 1):
        inside = folds == fold
        scores, truth = scores_of(columns[~inside], labels[~inside], columns[inside]), labels[inside]
        weight = int((truth == 0).sum() * (truth == 1).sum())
        value += weight * roc_auc(truth, scores)
        resampled = resampled + weight * bootstrap_aucs(truth, scores, resamples=1000, seed=fold)
        num_pairs += weight
    return percentile_interval(value / num_pairs, resampled / num_pairs)


def _file_folds(labels: np.ndarray, seed: int) -> np.ndarray:
    folds = np.empty(len(labels), dtype=int)
    split = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed).split(np.zeros(len(labels)), labels)
    for fold, (_, inside) in enumerate(split):
        folds[inside] = fold
    return folds


def _group_folds(labels: np.ndarray, groups: Sequence[str], seed: int) -> np.ndarray | None:
    """A fold for each file, so that no group is divided and every fold has both classes.

    A class with only one group is divided at random.
    """
    sizes = [Counter(group for group, of in zip(groups, labels, strict=True) if of == label) for label in (0, 1)]
    if max(map(len, sizes)) < 2:
        return None
    num_folds = min(_FOLDS, *(len(counts) for counts in sizes if len(counts) > 1))
    folds = np.empty(len(labels), dtype=int)
    rng = np.random.default_rng(seed)
    for label, counts in enumerate(sizes):
        places = np.flatnonzero(labels == label)
        if len(counts) == 1:
            folds[places] = rng.permutation(len(places)) % num_folds
            continue
        filled, fold_of = [0] * num_folds, {}
        for group, size in counts.most_common():  # largest groups first, each into the smallest fold
            fold_of[group] = filled.index(min(filled))
            filled[fold_of[group]] += size
        folds[places] = [fold_of[groups[place]] for place in places.tolist()]
    return folds


def forest_scores(columns: np.ndarray, labels: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For categories, thresholds and their combinations."""
    forest = RandomForestClassifier(20, min_samples_leaf=5, class_weight="balanced", random_state=0)
    return np.asarray(forest.fit(columns, labels).predict_proba(others))[:, 1]


def linear_scores(columns: np.ndarray, labels: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For thumbnails and single numbers."""
    mean, scale = columns.mean(axis=0), feature_scale(columns)
    regression = LogisticRegression(C=0.01, class_weight="balanced", max_iter=1000)
    regression.fit((columns - mean) / scale, labels)
    return regression.decision_function((others - mean) / scale)


# Facts as columns and as statements

_NUMBERS: dict[str, Callable[[FileFacts], float | None]] = {
    "the short side in pixels": lambda facts: min(facts.width, facts.height),
    "the long side in pixels": lambda facts: max(facts.width, facts.height),
    "width divided by height": lambda facts: facts.width / facts.height,
    "the JPEG quality, estimated from the quantisation tables,": lambda facts: facts.quality,
    "the file size in bytes per pixel": lambda facts: facts.bytes_per_pixel,
}
_CATEGORIES: dict[str, Callable[[FileFacts], str | None]] = {
    "the format is {}": lambda facts: facts.codec,
    "the colour mode is {}": lambda facts: facts.mode,
    "the bit depth is {}": lambda facts: str(facts.bit_depth),
    "the size is {}": lambda facts: f"{facts.width}x{facts.height} px",
    "the JPEG has the quantisation tables {}": lambda facts: (
        facts.tables and f"{facts.tables} (quality {facts.quality})"
    ),
    "the JPEG has colour planes in {}": lambda facts: facts.subsampling,
    "the density is given as {}": lambda facts: facts.density,
    "{} progressive or interlaced": lambda facts: "it is" if facts.progressive else None,
    "there is {} metadata": lambda facts: "EXIF" if facts.exif else None,
    "there is {} profile": lambda facts: "an ICC" if facts.icc else None,
    "there are {} metadata": lambda facts: "XMP" if facts.xmp else None,
    "there is {} in the file": lambda facts: "text" if facts.text else None,
}


def fact_columns(facts: Sequence[FileFacts]) -> np.ndarray:
    """(N, columns): the numbers, -1 if missing; for each category, one column of 0 and 1 per frequent value."""
    columns = [[-1 if (value := fact_of(one)) is None else value for one in facts] for fact_of in _NUMBERS.values()]
    for fact_of in _CATEGORIES.values():
        values = [fact_of(one) for one in facts]
        columns += [[value == one for value in values] for one, _ in Counter(values).most_common(_FREQUENT)]
    return np.array(columns, dtype=np.float32).T


def differences_of(facts: Sequence[FileFacts], labels: np.ndarray) -> tuple[Difference, ...]:
    """For each fact the statement with the largest difference between the classes, if it is larger than chance."""
    # Critical value of the two-sample Kolmogorov-Smirnov test at 0.1 %
    chance = 1.95 * (1 / np.bincount(labels)).sum() ** 0.5
    best = [max(found, key=_contrast) for statements in _statements(facts, labels) if (found := list(statements))]
    clear = [difference for difference in best if _contrast(difference) > max(0.1, chance)]
    return tuple(sorted(clear, key=_contrast, reverse=True))


def _statements(facts: Sequence[FileFacts], labels: np.ndarray) -> Iterator[Iterator[Difference]]:
    """For each fact all statements about it."""
    for words, fact_of in _CATEGORIES.items():
        values = [fact_of(one) for one in facts]
        frequent = [value for value, _ in Counter(values).most_common(_FREQUENT) if value is not None]
        yield (
            _difference(words.format(value), np.array([one == value for one in values]), labels) for value in frequent
        )
    for words, fact_of in _NUMBERS.items():
        numbers = [fact_of(one) for one in facts]
        known = np.array([number is not None for number in numbers])
        if min(np.bincount(labels[known], minlength=2)) < FEWEST:
            continue
        values = np.array([number for number in numbers if number is not None])
        limits = np.unique(np.quantile(values, np.linspace(0, 1, 100), method="lower"))
        yield (_difference(f"{words} is at most {limit:.4g}", values <= limit, labels[known]) for limit in limits)


def _difference(statement: str, is_true: np.ndarray, labels: np.ndarray) -> Difference:
    real, generated = (float(is_true[labels == label].mean()) for label in (0, 1))
    return Difference(statement=statement, real=real, generated=generated)


def _contrast(difference: Difference) -> float:
    return abs(difference.generated - difference.real)
