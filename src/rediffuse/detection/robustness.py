"""The figures of a detector after changes that are applied to all images of both classes.

Both classes are changed alike, so a difference to the unchanged images is the detector's: it lost what it measures, or
the change looks to it like a sign of one class.
"""

import csv
import hashlib
import io
import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from rediffuse.detection.detector import Detector
from rediffuse.detection.evaluate import aligned, decision_shares, require_both_classes
from rediffuse.detection.judge import judge
from rediffuse.detection.labelled import LabelledImage
from rediffuse.detection.metrics import roc_auc
from rediffuse.errors import InputError
from rediffuse.files import write_bytes
from rediffuse.images.changes import Change, ChangedImage
from rediffuse.images.config import ChangeName
from rediffuse.progress import Progress, counted, unobserved
from rediffuse.records import digest, parse
from rediffuse.zoo.model import DiffusionModel

LOGGER = logging.getLogger(__name__)

STRENGTHS: dict[ChangeName, tuple[float, ...]] = {
    "jpeg": (95, 85, 75, 60, 45, 30),
    "webp": (90, 75, 60, 45, 30),
    "reduce": (0.9, 0.8, 0.7, 0.6, 0.5),
    "crop": (0.9, 0.8, 0.7, 0.6, 0.5),
    "blur": (0.5, 1, 1.5, 2),
    "noise": (1, 2, 4, 8),
    "screenshot": (1.25, 1.5, 1.75),
}
"""The strengths of each change (`images.changes.Change`), the mildest first."""
assert tuple(STRENGTHS) == get_args(ChangeName)

Unchanged = Literal["unchanged"]
UNCHANGED: Unchanged = "unchanged"
Key = tuple[ChangeName | Unchanged, float | None]
"""A change and its strength; None for the unchanged images."""

HEADINGS = ("change", "strength", "images", "AUC", "false alarms", "missed", "decided")


@dataclass(frozen=True, kw_only=True)
class RobustnessRow:
    """The figures of a detector after one change; they are None if a class has no image that can be judged after it."""

    change: ChangeName | Unchanged
    strength: float | None
    """See `Change.strength`; None for the unchanged images."""
    num_real: int
    """Real images that were judged: fewer than unchanged ones where some are too small after the change."""
    num_generated: int
    auc: float | None
    real_called_generated: float | None
    """Share of the real images, with the detector's thresholds; so are the next two."""
    generated_called_real: float | None
    """Share of the generated images."""
    decided: float | None
    """The coverage: the share of images that are not `unsure`, the mean of both classes."""
    digest: str
    """Of the detector and the images (`digest_of`)."""

    @property
    def key(self) -> Key:
        """The change and its strength."""
        return self.change, self.strength


COLUMNS = tuple(field.name for field in fields(RobustnessRow))


def changes_of(names: Iterable[ChangeName]) -> list[Change | None]:
    """None for the unchanged images, then every strength of the named changes, in the order of `STRENGTHS`."""
    named = set(names)
    return [None, *(Change(name, strength) for name in STRENGTHS if name in named for strength in STRENGTHS[name])]


def key_of(change: Change | None) -> Key:
    """The `RobustnessRow.key` of a change; None is no change."""
    return (UNCHANGED, None) if change is None else (change.name, float(change.strength))


def digest_of(detector: Detector, images: Sequence[LabelledImage]) -> str:
    """The first 16 hexadecimal digits of a SHA-256 of the detector and of all files, with their names and classes."""
    content = hashlib.sha256(f"{detector.scorer.input.name} {detector.familiarity.limit}".encode())
    for record in (detector.settings, detector.calibration, detector.thresholds):
        content.update(digest(record).encode())
    arrays = {name: tensor.cpu().numpy() for name, tensor in detector.scorer.tensors().items()}
    arrays |= {"centres": detector.familiarity.centres, "precision": detector.familiarity.precision}
    for name, array in arrays.items():
        content.update(f"{name} {array.shape}".encode() + array.tobytes())
    for image in images:
        content.update(f"\n{image.label} {image.found.name} {image.found.sha256() or 'unreadable'}".encode())
    return content.hexdigest()[:16]


def measure(
    model: DiffusionModel,
    detector: Detector,
    images: Sequence[LabelledImage],
    change: Change | None,
    *,
    digest: str,
    batch_size: int = 16,
    workers: int = 2,
    progress: Progress = unobserved,
) -> RobustnessRow:
    """Judge all images after a change.

    The noise of an image depends on its place in `images` alone. Images that cannot be judged are left out: without a
    change their errors are logged, and after one they are those, and images that it made too small.

    Args:
        model: the model that the detector was trained with.
        detector: the detector, with its thresholds.
        images: images of known class (`find_labelled`).
        change: what happens to each of them first; None for nothing.
        digest: of the detector and the images (`digest_of`).
        batch_size: see `judge`.
        workers: see `judge`.
        progress: called with the number of images that were judged.

    Raises:
        SettingsMismatch: the detector was trained with another model.
        ConfigError: a number is below 1.
        InputError: no unchanged image of one of the classes can be judged.
    """
    files = [
        image.found if change is None else ChangedImage(image.found, change, seed=place)
        for place, image in enumerate(images)
    ]
    verdicts = judge(model, files, detector, batch_size=batch_size, workers=workers, explain=False)
    what = UNCHANGED if change is None else str(change)
    labels, probabilities, decisions = [], [], []
    skipped: list[str] = []
    for image, verdict in zip(images, counted(verdicts, what, len(files), progress), strict=True):
        if verdict.judged:
            labels.append(image.label)
            probabilities.append(verdict.probability)
            decisions.append(verdict.decision)
        else:
            skipped.append(str(verdict.reason))
    for reason in skipped:
        LOGGER.log(logging.ERROR if change is None else logging.DEBUG, "%s", reason)
    if change is None:
        require_both_classes(labels, skipped)
    return _row(key_of(change), np.array(labels), np.array(probabilities), np.array(decisions), digest)


def robustness_table(rows: Sequence[RobustnessRow]) -> str:
    """The rows as aligned text, without a newline at the end."""
    return aligned([HEADINGS, *map(_cells, rows)])


def write_rows(path: Path, rows: Iterable[RobustnessRow]) -> None:
    """Write rows as CSV, in the order of `STRENGTHS`; a missing number is an empty field.

    Raises:
        StorageError: the file cannot be written.
    """
    order = [key_of(change) for change in changes_of(STRENGTHS)]
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in sorted(rows, key=lambda row: order.index(row.key)))
    write_bytes(path, text.getvalue().encode())


def read_rows(path: Path) -> list[RobustnessRow]:
    """Read rows that `write_rows` wrote.

    Raises:
        InputError: the file cannot be read, or is another table.
        ConfigError: a field holds no number.
    """
    try:
        lines = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    if not lines or tuple(lines[0]) != COLUMNS or any(len(line) != len(COLUMNS) for line in lines):
        raise InputError(f"{path}: is not a table of `rediffuse eval robustness`; give another file")
    named = [{name: value or None for name, value in zip(COLUMNS, line, strict=True)} for line in lines[1:]]
    rows = [parse(RobustnessRow, each, str(path)) for each in named]
    known = {key_of(change) for change in changes_of(STRENGTHS)}
    if unknown := [row for row in rows if row.key not in known]:
        change, strength = unknown[0].key
        raise InputError(f"{path}: {change} of strength {strength} is no change of this version; give another file")
    return rows


def _row(key: Key, labels: np.ndarray, probabilities: np.ndarray, decisions: np.ndarray, digest: str) -> RobustnessRow:
    counts = [int((labels == label).sum()) for label in (0, 1)]
    auc = false_alarms = misses = decided = None
    if all(counts):
        auc = roc_auc(labels, probabilities)
        false_alarms, misses, decided = decision_shares(labels, decisions)
    return RobustnessRow(
        change=key[0],
        strength=key[1],
        num_real=counts[0],
        num_generated=counts[1],
        auc=auc,
        real_called_generated=false_alarms,
        generated_called_real=misses,
        decided=decided,
        digest=digest,
    )


def _cells(row: RobustnessRow) -> tuple[str, ...]:
    shares = (row.real_called_generated, row.generated_called_real, row.decided)
    return (
        row.change,
        "" if row.strength is None else f"{row.strength:g}",
        f"{row.num_real}+{row.num_generated}",
        "-" if row.auc is None else f"{row.auc:.3f}",
        *("-" if share is None else f"{share:.1%}" for share in shares),
    )
