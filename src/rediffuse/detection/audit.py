"""The audit of a labelled data set: what reveals the class of a file, other than signs of generation.

If the files of the two classes differ in format, size, compression or metadata, a detector can learn that difference
instead, and its figures look good. The same happens if test images are among the training images, or if real and
generated images show different subjects. The audit measures each of these separately, without a diffusion model.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image

from rediffuse.detection.duplicates import HASH_SIDE, AuditImage, Duplicate, Examined, Part, find_duplicates
from rediffuse.detection.labelled import CLASSES, LabelledImage, find_labelled
from rediffuse.detection.leaks import (
    FEWEST,
    Difference,
    Leak,
    differences_of,
    fact_columns,
    forest_scores,
    linear_scores,
    measure_leak,
)
from rediffuse.detection.swap import SwapTest
from rediffuse.errors import ImageError, InputError
from rediffuse.images.crop import squash
from rediffuse.images.decode import decode_bytes
from rediffuse.images.facts import block_grid, facts_of
from rediffuse.images.find import find_images
from rediffuse.images.limits import Limits
from rediffuse.images.windows import GRID
from rediffuse.progress import Progress, counted, unobserved
from rediffuse.threads import in_threads

SPLITS = ("train", "validation", "val", "test")
"""Folders of a data set that hold the two classes each."""
AUDITED = 1000
"""Largest number of files of each class that are audited before a training or an evaluation."""
TOLERATED = 0.01
"""Largest share of files whose picture may be in both classes, or in several splits."""
THUMBNAIL = 8
"""Side of the thumbnail that shows the subject, in pixels."""


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


def audit_folder(folder: Path, limits: Limits = Limits()) -> list[AuditImage]:
    """The images of a folder or CSV file as `find_labelled` reads it, or of a folder with splits (`train/` and so on).

    Raises:
        InputError: see `find_labelled`.
    """
    splits = [name for name in SPLITS if (folder / name).is_dir()]
    if not splits:
        return audit_labelled(find_labelled(folder, limits))
    return [image for split in splits for image in audit_labelled(find_labelled(folder / split, limits), split)]


def audit_labelled(images: Iterable[LabelledImage], split: str = "") -> list[AuditImage]:
    """Images of known class; their collections are the groups. With a split, names begin with it."""
    return [
        AuditImage(
            found=replace(one.found, name=f"{split}/{one.found.name}") if split else one.found,
            label=one.label,
            split=split,
            group=one.collection,
        )
        for one in images
    ]


def audit_paths(
    real: Sequence[Path | str], generated: Sequence[Path | str], limits: Limits = Limits()
) -> list[AuditImage]:
    """The images under the paths of each class: files, folders or patterns, as `images.find.find_images` takes them.

    Raises:
        InputError: a class is missing, a path does not exist, or there are no images under it.
    """
    images = []
    for label, (name, paths) in enumerate(zip(CLASSES, (real, generated), strict=True)):
        if not paths:
            raise InputError(f"no {name} images are given; both classes are needed")
        for found in find_images(paths, limits):
            first, _, below = found.name.partition("/")
            named = replace(found, name=f"{name}/{found.name}")
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
        images: from `audit_folder`, `audit_labelled` or `audit_paths`.
        max_files: the largest number of files of each class; more are sampled at random. None examines all.
        seed: of the sample, and of the folds of the cross-validation.
        workers: number of threads that read files.
        progress: called with the number of files that were read.

    Returns:
        The report. It is the same for the same files and arguments; unreadable files are listed in it.
    """
    chosen = sampled(images, max_files, seed)
    outcomes = list(counted(in_threads(_examine, chosen, workers, 64), "audit", len(chosen), progress))
    seen = [outcome for outcome in outcomes if isinstance(outcome, Examined)]
    labels = np.array([one.image.label for one in seen], dtype=int)
    num_real, num_generated = (int((labels == label).sum()) for label in (0, 1))
    report = AuditReport(
        num_real=num_real,
        num_generated=num_generated,
        num_found=len(images),
        num_examined=len(chosen),
        unreadable=tuple(outcome for outcome in outcomes if isinstance(outcome, str)),
        duplicates=find_duplicates(seen),
    )
    if min(num_real, num_generated) < FEWEST:
        return report
    groups = [one.image.group for one in seen]
    facts = [one.facts for one in seen]
    grid = np.array([[one.grid] for one in seen])
    thumbnails = np.array([one.thumbnail for one in seen])
    return replace(
        report,
        facts=measure_leak(fact_columns(facts), labels, groups, forest_scores, seed),
        grid=measure_leak(grid, labels, groups, linear_scores, seed),
        subject=measure_leak(thumbnails, labels, groups, linear_scores, seed),
        differences=differences_of(facts, labels),
    )


def sampled(images: Sequence[AuditImage], max_files: int | None, seed: int) -> list[AuditImage]:
    if max_files is None:
        return list(images)
    rng = np.random.default_rng(seed)
    kept: set[int] = set()
    for label in (0, 1):
        places = [place for place, image in enumerate(images) if image.label == label]
        kept |= set(rng.permutation(places)[:max_files].tolist())
    return [image for place, image in enumerate(images) if place in kept]


def _examine(image: AuditImage) -> Examined | str:
    """One file, or the reason why it cannot be read."""
    found = image.found
    try:
        content = found.read()
        decoded = decode_bytes(content, found.source, found.limits)
        facts = facts_of(content, found.source)
    except ImageError as error:
        return str(error)
    # The hash and the thumbnail need few pixels, and are much cheaper to compute from a smaller picture.
    picture = Image.fromarray(decoded.pixels)
    picture.thumbnail((512, 512), Image.Resampling.BILINEAR)
    return Examined(
        image=image,
        facts=facts,
        grid=block_grid(decoded.pixels),
        sha256=decoded.sha256,
        hash=imagehash.phash(picture, hash_size=HASH_SIDE).hash.ravel(),
        thumbnail=squash(np.asarray(picture), THUMBNAIL).astype(np.float32).ravel(),
    )


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
