"""The audit of a labelled data set: what reveals the class of a file, other than signs of generation.

If the files of the two classes differ in format, size, compression or metadata, a detector can learn that difference
instead, and its figures look good. The same happens if test images are among the training images, or if real and
generated images show different subjects. The audit measures each of these separately, without a diffusion model.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import imagehash
import numpy as np
from PIL import Image
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from rediffuse.detection.familiarity import feature_scale
from rediffuse.detection.labelled import CLASSES, find_labelled
from rediffuse.detection.metrics import Interval, bootstrap_aucs, roc_auc
from rediffuse.detection.swap import SwapTest
from rediffuse.dire.job import in_threads
from rediffuse.errors import ImageError, InputError
from rediffuse.images.crop import squash
from rediffuse.images.decode import decode_bytes, printable, read_file
from rediffuse.images.facts import FileFacts, block_grid, facts_of
from rediffuse.images.find import FoundImage, find_images
from rediffuse.images.windows import GRID
from rediffuse.progress import Progress, counted, unobserved

SPLITS = ("train", "validation", "val", "test")
"""Folders of a data set that hold the two classes each."""
FEWEST = 20
"""Smallest number of files of a class for which an AUC is computed."""
REVEALS = 0.55
"""The class is revealed if the whole interval of the AUC lies above this."""
UNDECIDED = 0.65
"""More files are needed if the interval of the AUC reaches this, and does not lie above `REVEALS`."""
TOLERATED = 0.01
"""Largest share of files whose picture may be in both classes, or in several splits."""
THUMBNAIL = 8
"""Side of the thumbnail that shows the subject, in pixels."""

Part = Literal["classes", "splits", "groups"]
"""A picture should be in one of each only."""

_HASH_SIDE = 16
_HASH_BITS = _HASH_SIDE**2
_ALIKE_BITS = 40
"""Largest number of bits, of 256, in which the perceptual hashes of near-duplicates differ.

Measured on 80 photographs and generated images: JPEG 50, a reduction by half and a change of brightness change up to 16
bits, a crop of 2 % up to 54; two different pictures differ in at least 88.
"""
_ALIKE_LEVELS = 10.0
"""Largest mean difference of the thumbnails of near-duplicates, in levels of 0 to 255."""
_FOLDS = 5
_FREQUENT = 12
"""The most frequent values of a fact have a column each in the classifier's input; the others have none."""


@dataclass(frozen=True, kw_only=True)
class AuditImage:
    """A file with its class, split and group."""

    found: FoundImage
    label: int
    """0 real, 1 generated."""
    split: str = ""
    """`train`, `validation`, `test`; empty where the data have no splits."""
    group: str = ""
    """The folder below that of the class: a generator, a source of photographs; empty where there is none."""


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


@dataclass(frozen=True, kw_only=True)
class Duplicate:
    """Files that show the same picture."""

    files: tuple[str, ...]
    same_bytes: bool
    """False: they look alike, because they were re-encoded or resized, or show nearly the same scene."""
    across: tuple[Part, ...]
    """The files are in several of these."""


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """What the audit of a data set found."""

    num_real: int
    """Real files that could be read."""
    num_generated: int
    """Generated files that could be read."""
    num_found: int
    """All files of the data set."""
    num_examined: int
    """Files in the sample, unreadable ones included; all files if no sample was drawn."""
    unreadable: tuple[str, ...] = ()
    """Why a file could not be read, a line each."""
    facts: Leak | None = None
    """From format, size, compression and metadata; None if a class has fewer than `FEWEST` files."""
    grid: Leak | None = None
    """From the 8-pixel grid that JPEG compression leaves in the pixels, even if the file is now a PNG
    (`images.facts.block_grid`). Some generators leave one too."""
    subject: Leak | None = None
    """From a thumbnail of 8 pixels: from what the pictures show."""
    differences: tuple[Difference, ...] = ()
    """Of the files, the largest first."""
    duplicates: tuple[Duplicate, ...] = ()
    swap: SwapTest | None = None

    @property
    def num_files(self) -> int:
        """Files that could be read."""
        return self.num_real + self.num_generated

    def num_across(self, part: Part) -> int:
        """The number of files that have a duplicate in another class, split or group."""
        return sum(len(duplicate.files) for duplicate in self.duplicates if part in duplicate.across)

    @property
    def can_carry_a_claim(self) -> bool:
        """Whether there are no `problems`."""
        return not self.problems

    @property
    def problems(self) -> tuple[str, ...]:
        """Why figures that are measured on these data say nothing about detection."""
        return tuple(_problems(self))

    @property
    def reservations(self) -> tuple[str, ...]:
        """What has to be considered when figures are measured on these data."""
        return tuple(_reservations(self))

    @property
    def line(self) -> str:
        """The conclusion in one line."""
        if self.problems:
            return f"these data cannot carry a claim, because {'; and '.join(self.problems)}"
        assert self.facts is not None
        why = f"the files do not reveal the class (AUC {self.facts.worst})"
        but = f"; but {'; and '.join(self.reservations)}" if self.reservations else ""
        return f"these data can carry a claim, because {why}{but}"


def audit_folder(folder: Path) -> list[AuditImage]:
    """The images of a folder with `real/` and `generated/`, or with splits (`train/` and so on) that have these.

    Raises:
        InputError: the folder, or one of its splits, lacks a class.
    """
    splits = [name for name in SPLITS if (folder / name).is_dir()]
    images = []
    for split in splits or [""]:
        for one in find_labelled(folder / split):
            _, *between, _ = one.found.name.split("/")
            name = f"{split}/{one.found.name}" if split else one.found.name
            found = FoundImage(one.found.path, name)
            images.append(AuditImage(found=found, label=one.label, split=split, group=between[0] if between else ""))
    return images


def audit_paths(real: Sequence[Path | str], generated: Sequence[Path | str]) -> list[AuditImage]:
    """The images under the paths of each class: files, folders or patterns, as `images.find.find_images` takes them.

    Raises:
        InputError: a class is missing, a path does not exist, or there are no images under it.
    """
    images = []
    for label, (name, paths) in enumerate(zip(CLASSES, (real, generated), strict=True)):
        if not paths:
            raise InputError(f"no {name} images are given; both classes are needed")
        for found in find_images(paths):
            first, _, below = found.name.partition("/")
            named = FoundImage(found.path, f"{name}/{found.name}")
            images.append(AuditImage(found=named, label=label, group=first if below else ""))
    return images


def audit(
    images: Sequence[AuditImage],
    *,
    max_files: int | None = None,
    seed: int = 0,
    workers: int = 2,
    progress: Progress = unobserved,
) -> AuditReport:
    """Examine every file, and measure what reveals the class.

    Args:
        images: from `audit_folder` or `audit_paths`.
        max_files: the largest number of files of each class; more are sampled at random. None examines all.
        seed: of the sample, and of the folds of the cross-validation.
        workers: number of threads that read files.
        progress: called with the number of files that were read.

    Returns:
        The report. It is the same for the same files and arguments; unreadable files are listed in it.
    """
    chosen = sampled(images, max_files, seed)
    outcomes = list(counted(in_threads(_examine, chosen, workers, 64), "audit", len(chosen), progress))
    seen = [outcome for outcome in outcomes if isinstance(outcome, _Examined)]
    labels = np.array([one.image.label for one in seen], dtype=int)
    num_real, num_generated = (int((labels == label).sum()) for label in (0, 1))
    report = AuditReport(
        num_real=num_real,
        num_generated=num_generated,
        num_found=len(images),
        num_examined=len(chosen),
        unreadable=tuple(outcome for outcome in outcomes if isinstance(outcome, str)),
        duplicates=_duplicates(seen),
    )
    if min(num_real, num_generated) < FEWEST:
        return report
    groups = [one.image.group for one in seen]
    facts = [one.facts for one in seen]
    grid = np.array([[one.grid] for one in seen])
    thumbnails = np.array([one.thumbnail for one in seen])
    return replace(
        report,
        facts=_leak(_fact_columns(facts), labels, groups, _forest, seed),
        grid=_leak(grid, labels, groups, _linear, seed),
        subject=_leak(thumbnails, labels, groups, _linear, seed),
        differences=_differences(facts, labels),
    )


@dataclass(frozen=True, kw_only=True)
class _Examined:
    image: AuditImage
    facts: FileFacts
    grid: float
    sha256: str
    hash: np.ndarray
    """(256,) bool, perceptual."""
    thumbnail: np.ndarray
    """(192,) float32, levels of 0 to 255."""


_Scores = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Columns (N, F) and labels (N,) to fit a classifier to, columns (M, F) of other files; gives their scores (M,)."""


def sampled(images: Sequence[AuditImage], max_files: int | None, seed: int) -> list[AuditImage]:
    if max_files is None:
        return list(images)
    rng = np.random.default_rng(seed)
    kept: set[int] = set()
    for label in (0, 1):
        places = [place for place, image in enumerate(images) if image.label == label]
        kept |= set(rng.permutation(places)[:max_files].tolist())
    return [image for place, image in enumerate(images) if place in kept]


def _examine(image: AuditImage) -> _Examined | str:
    """One file, or the reason why it cannot be read."""
    path = image.found.path
    try:
        content = read_file(path)
        decoded = decode_bytes(content, printable(path))
        facts = facts_of(content, printable(path))
    except ImageError as error:
        return str(error)
    # The hash and the thumbnail need few pixels, and are much cheaper to compute from a smaller picture.
    picture = Image.fromarray(decoded.pixels)
    picture.thumbnail((512, 512), Image.Resampling.BILINEAR)
    return _Examined(
        image=image,
        facts=facts,
        grid=block_grid(decoded.pixels),
        sha256=decoded.sha256,
        hash=imagehash.phash(picture, hash_size=_HASH_SIDE).hash.ravel(),
        thumbnail=squash(np.asarray(picture), THUMBNAIL).astype(np.float32).ravel(),
    )


# The AUCs


def _leak(columns: np.ndarray, labels: np.ndarray, groups: Sequence[str], scores_of: _Scores, seed: int) -> Leak:
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
    low, high = np.quantile(resampled / num_pairs, [0.025, 0.975])
    return Interval(value=value / num_pairs, low=float(low), high=float(high))


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


def _forest(columns: np.ndarray, labels: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For categories, thresholds and their combinations."""
    forest = RandomForestClassifier(20, min_samples_leaf=5, class_weight="balanced", random_state=0)
    return np.asarray(forest.fit(columns, labels).predict_proba(others))[:, 1]


def _linear(columns: np.ndarray, labels: np.ndarray, others: np.ndarray) -> np.ndarray:
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


def _fact_columns(facts: Sequence[FileFacts]) -> np.ndarray:
    """(N, columns): the numbers, -1 if missing; for each category, one column of 0 and 1 per frequent value."""
    columns = [[-1 if (value := fact_of(one)) is None else value for one in facts] for fact_of in _NUMBERS.values()]
    for fact_of in _CATEGORIES.values():
        values = [fact_of(one) for one in facts]
        columns += [[value == one for value in values] for one, _ in Counter(values).most_common(_FREQUENT)]
    return np.array(columns, dtype=np.float32).T


def _differences(facts: Sequence[FileFacts], labels: np.ndarray) -> tuple[Difference, ...]:
    """For each fact the statement with the largest difference between the classes, if it is larger than chance."""
    num_real, num_generated = (int((labels == label).sum()) for label in (0, 1))
    # Critical value of the two-sample Kolmogorov-Smirnov test at 0.1 %
    chance = 1.95 * ((num_real + num_generated) / (num_real * num_generated)) ** 0.5
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
        values = np.array([number for number in numbers if number is not None], dtype=float)
        limits = np.unique(np.quantile(values, np.linspace(0, 1, 100), method="lower"))
        yield (_difference(f"{words} is at most {limit:.4g}", values <= limit, labels[known]) for limit in limits)


def _difference(statement: str, is_true: np.ndarray, labels: np.ndarray) -> Difference:
    real, generated = (float(is_true[labels == label].mean()) for label in (0, 1))
    return Difference(statement=statement, real=real, generated=generated)


def _contrast(difference: Difference) -> float:
    return abs(difference.generated - difference.real)


# Duplicates


def _duplicates(seen: Sequence[_Examined]) -> tuple[Duplicate, ...]:
    """Sets of files that show the same picture, those across classes first, then across splits."""
    leader = list(range(len(seen)))  # union-find

    def find(place: int) -> int:
        while leader[place] != place:
            leader[place] = leader[leader[place]]
            place = leader[place]
        return place

    for first, second in _alike_pairs(seen):
        leader[find(second)] = find(first)
    members: dict[int, list[_Examined]] = {}
    for place, one in enumerate(seen):
        members.setdefault(find(place), []).append(one)
    found = [_duplicate(files) for files in members.values() if len(files) > 1]
    order = [*get_args(Part), None]
    return tuple(sorted(found, key=lambda duplicate: order.index(next(iter(duplicate.across), None))))


def _duplicate(files: Sequence[_Examined]) -> Duplicate:
    images = [one.image for one in files]
    values: dict[Part, set[object]] = {
        "classes": {image.label for image in images},
        "splits": {image.split for image in images},
        "groups": {(image.label, image.group) for image in images},
    }
    return Duplicate(
        files=tuple(image.found.name for image in images),
        same_bytes=len({one.sha256 for one in files}) == 1,
        across=tuple(part for part in get_args(Part) if len(values[part]) > 1),
    )


def _alike_pairs(seen: Sequence[_Examined]) -> Iterator[tuple[int, int]]:
    """Pairs of indices of files with the same bytes, or with similar perceptual hashes and thumbnails."""
    first_with: dict[str, int] = {}
    for place, one in enumerate(seen):
        if (first := first_with.setdefault(one.sha256, place)) != place:
            yield first, place
    if not seen:
        return
    signs = np.array([one.hash for one in seen], dtype=np.float32) * 2 - 1  # (N, 256)
    thumbnails = np.array([one.thumbnail for one in seen])
    for start in range(0, len(seen), 512):
        # Two vectors of +1 and -1 differ in (256 - dot product) / 2 places
        differing = (_HASH_BITS - signs[start : start + 512] @ signs[start:].T) / 2  # (512, N - start)
        for row, column in np.argwhere(np.triu(differing <= _ALIKE_BITS, k=1)):
            first, second = start + int(row), start + int(column)
            if np.abs(thumbnails[first] - thumbnails[second]).mean() < _ALIKE_LEVELS:
                yield first, second


# The conclusion


def _problems(report: AuditReport) -> Iterator[str]:
    for name, count in zip(CLASSES, (report.num_real, report.num_generated), strict=True):
        if count < FEWEST:
            yield f"there are {count or 'no'} readable {name} files, and at least {FEWEST} of each class are needed"
    if report.facts is not None:
        example = f"; {report.differences[0]}" if report.differences else ""
        if report.facts.reveals_class:
            yield f"the files reveal the class (AUC {report.facts.worst}{example})"
        elif report.facts.is_undecided:
            yield f"there are too few files to say whether they reveal the class (AUC {report.facts.files})"
    # If the files reveal the class, the grid is only another sign of the same difference.
    if report.grid is not None and report.grid.reveals_class and not (report.facts and report.facts.reveals_class):
        yield f"an {GRID}-pixel grid, as JPEG leaves it, reveals the class (AUC {report.grid.worst})"
    yield from (text for share, text in _repeated(report) if share > TOLERATED)
    if report.swap is not None and report.swap.moves:
        yield f"the detector responds to how files are encoded ({report.swap})"


def _reservations(report: AuditReport) -> Iterator[str]:
    if report.subject is not None and report.subject.reveals_class:
        yield (
            f"what the pictures show reveals it (AUC {report.subject.worst} from thumbnails of {THUMBNAIL} px): "
            "compare every figure with that of a control that sees the same pictures"
        )
    if report.grid is not None and not report.grid.reveals_class and report.grid.worst.low > 0.5:
        yield f"an {GRID}-pixel grid, as JPEG leaves it, is a weak sign of the class (AUC {report.grid.worst})"
    yield from (text for share, text in _repeated(report) if share <= TOLERATED)
    if (in_groups := report.num_across("groups")) > report.num_across("classes"):
        yield f"{in_groups} files show a picture that is in several groups: leave these groups out together"
    if report.num_examined < report.num_found:
        yield f"{report.num_examined} of {report.num_found} files were examined"
    if report.unreadable:
        yield f"{len(report.unreadable)} of {report.num_examined} files cannot be read"


def _repeated(report: AuditReport) -> Iterator[tuple[float, str]]:
    """For classes and for splits: the share of files whose picture is in several, and the statement."""
    parts: dict[Part, str] = {"classes": "both classes", "splits": "several splits"}
    for part, words in parts.items():
        if count := report.num_across(part):
            yield count / report.num_files, f"{count} of {report.num_files} files show a picture that is in {words}"
