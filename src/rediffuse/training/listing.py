"""The images of a folder and their classes, as a table that is made once and kept beside a run."""

import csv
import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rediffuse.errors import InputError, nearest
from rediffuse.files import atomic_write, sha256_of
from rediffuse.images.decode import printable
from rediffuse.images.find import find_images

_RECORD = b"rediffuse"
"""The key in the metadata of an index under which the fields of a listing beside its table are."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Image files and their classes; the files have not been read yet.

    The names are in one block of memory, of a file if there is one. So processes that read images share them, and a
    million files take about 60 MB.
    """

    folder: Path
    table: pa.Table
    """One row per file: `name` (see `FoundImage.name`); `file`, the bytes of its path below the folder; with classes
    `label`, an index into `classes`."""
    classes: tuple[str, ...]
    """Names of the classes in order (numerical if all of them are numbers); empty without classes."""
    origin: dict[str, Any]
    """What tells whether files were added or removed since: the times of the folders, and a hash of the labels."""

    def __len__(self) -> int:
        return self.table.num_rows

    @property
    def names(self) -> list[str]:
        return self.table["name"].to_pylist()

    @cached_property
    def labels(self) -> np.ndarray:
        """(N,) int32; empty without classes."""
        return self.table["label"].to_numpy() if self.classes else np.empty(0, np.int32)

    @property
    def fingerprint(self) -> str:
        """A hash of names and labels."""
        rows = zip(self.names, self.labels.tolist() if self.classes else [""] * len(self), strict=True)
        return hashlib.sha256("\n".join(f"{name},{label}" for name, label in rows).encode()).hexdigest()[:16]

    def path(self, index: int) -> Path:
        return self.folder / os.fsdecode(self.table["file"][index].as_py())

    def only(self, indices: Sequence[int]) -> "Listing":
        """The files at these indices; the classes and their numbers do not change."""
        return replace(self, table=self.table.take(pa.array(indices, pa.int64())))

    def numbered_as(self, classes: Sequence[str]) -> "Listing":
        """The same files with their classes numbered as in `classes`, so that validation images have the training's.

        Raises:
            InputError: the class of a file is not among them; names the first such file.
        """
        number = {name: index for index, name in enumerate(classes)}
        numbers = np.array([number.get(name, -1) for name in self.classes or [""]], np.int32)
        labels = numbers[self.labels if self.classes else np.zeros(len(self), np.int32)]
        if (labels < 0).any():
            place = int(np.argmax(labels < 0))
            label = self.classes[self.labels[place]] if self.classes else None
            given = "no class" if label is None else f"class {label!r}{nearest(label, classes)}"
            name = self.table["name"][place].as_py()
            raise InputError(f"{self.path(place)}: {name} has {given}; the training has {', '.join(classes)}")
        table = self.table.select(["name", "file"]).append_column("label", pa.array(labels))
        return replace(self, table=table, classes=tuple(classes))

    def write(self, index: Path) -> None:
        """Write an index for `list_images`, unless it is there.

        Raises:
            StorageError: it cannot be written.
        """
        if _read(index, self.folder, self.origin["labels"]) is not None:
            return
        record = {"origin": self.origin, "classes": self.classes}
        table = self.table.replace_schema_metadata({_RECORD: json.dumps(record).encode()})
        with atomic_write(index) as partial, pa.ipc.new_file(str(partial), table.schema) as writer:
            writer.write_table(table)


def list_images(folder: Path, labels: Path | None = None, index: Path | None = None) -> Listing:
    """Find the images below `folder` and their classes: the name of the first subfolder, or the class in `labels`.

    Args:
        folder: the folder, searched recursively.
        labels: a CSV file with the columns `path` (relative to `folder`) and `label`; only files in it are used.
        index: a file of `Listing.write`; if no file was added or removed since, it is read, and no folder is listed.

    Raises:
        InputError: there are no images, or the labels file has another form or names missing files.
    """
    labels_sha256 = _sha256_of(labels) if labels else None
    if index is not None and (listing := _read(index, folder, labels_sha256)) is not None:
        return listing
    times = _folder_times(folder)  # before the folders are listed: what is added meanwhile changes them
    found = {image.name: image.path for image in find_images([folder]) if isinstance(image.path, Path)}
    of_file = _read_labels(labels, found, folder) if labels else _subfolders(found)
    names = sorted(of_file or found)
    classes = tuple(sorted(set(of_file.values()), key=_class_order(of_file.values())))
    number = {label: place for place, label in enumerate(classes)}
    columns = {
        "name": pa.array(names, pa.large_string()),
        "file": pa.array([os.fsencode(os.path.relpath(found[name], folder)) for name in names], pa.large_binary()),
    }
    if of_file:
        columns["label"] = pa.array([number[of_file[name]] for name in names], pa.int32())
    origin = {"folders": times, "labels": labels_sha256}
    return Listing(folder=folder, table=pa.table(columns), classes=classes, origin=origin)


def _read(index: Path, folder: Path, labels_sha256: str | None) -> Listing | None:
    """The listing in an index; None if there is none, or files or labels have changed."""
    try:
        table = pa.ipc.open_file(pa.memory_map(str(index))).read_all()
        record = json.loads(table.schema.metadata[_RECORD])
        classes, origin = tuple(record["classes"]), record["origin"]
        listing = Listing(folder=folder, table=table, classes=classes, origin=origin)
        times = origin["folders"]
        is_same = all((folder / name).stat().st_mtime_ns == time for name, time in times.items())
    except (OSError, pa.ArrowException, LookupError, TypeError, ValueError):
        return None
    return listing if times and is_same and origin["labels"] == labels_sha256 else None


def _folder_times(folder: Path) -> dict[str, int]:
    """When a file was last added to a folder, or removed from it: ns, for `folder` and every one below it."""
    times, entered, folders = {}, set(), [folder] if folder.is_dir() else []
    while folders:
        path = folders.pop()
        if (real := os.path.realpath(path)) in entered:
            continue
        entered.add(real)
        try:
            times[os.path.relpath(path, folder)] = path.stat().st_mtime_ns
            with os.scandir(path) as entries:
                folders += [Path(entry.path) for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
        except OSError as error:
            raise InputError(f"{printable(path)}: cannot be listed: {error.strerror or error}") from None
    return times


def _sha256_of(labels: Path) -> str:
    try:
        return sha256_of(labels)
    except OSError as error:
        raise InputError(f"{labels}: cannot be read as a CSV file: {error}") from None


def _class_order(names: Iterable[str]) -> Callable[[str], Any]:
    """A sort key: the number if all names are numbers, so that 2 comes before 10; otherwise the name."""
    if all(name.isascii() and name.isdecimal() for name in names):
        return lambda name: (int(name), name)
    return str


def _subfolders(names: Collection[str]) -> dict[str, str]:
    """The first folder in every name; empty if some images are in no subfolder."""
    of_file = {name: name.split("/")[0] for name in names if "/" in name}
    return of_file if len(of_file) == len(names) else {}


def _read_labels(path: Path, found: Collection[str], folder: Path) -> dict[str, str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheet programs write a byte order mark
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a CSV file: {error}") from None
    if "path" not in columns or "label" not in columns:
        raise InputError(f"{path}: the columns path and label are needed, given {', '.join(columns) or 'nothing'}")
    of_file: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        name, label = row["path"], row["label"]
        if name not in found:
            raise InputError(f"{path}: line {number}: {name!r} is not an image in {folder}")
        if not label:
            raise InputError(f"{path}: line {number}: {name!r} has no label")
        if of_file.setdefault(name, label) != label:
            raise InputError(f"{path}: line {number}: {name!r} has label {label!r}, but {of_file[name]!r} before")
    if not of_file:
        raise InputError(f"{path}: holds no labels")
    return of_file
