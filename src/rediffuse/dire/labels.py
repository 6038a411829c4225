"""The class of every file, for a class-conditional model: one for all, from a file, or from the list of images."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from rediffuse.errors import ConfigError, InputError
from rediffuse.images.find import FoundImage
from rediffuse.images.lists import read_rows


def with_classes(
    files: Iterable[FoundImage], num_classes: int | None, classes: int | Mapping[str, int] | None = None
) -> Iterator[FoundImage]:
    """The files with their classes for a model; without classes for one that is not class-conditional.

    Args:
        files: from `images.find`; those from a list or a tar file may have a label.
        num_classes: `DiffusionModel.num_classes`.
        classes: the class of all files, or of each by its name; None for the labels that the files have.

    Raises:
        ConfigError: at once, if classes are given and the model has none; later, at a file whose class is missing or
            none of the model's.
    """
    if num_classes is None and classes is not None:
        raise ConfigError("labels: this model is not class-conditional; leave them out")
    return (replace(found, label=_class_of(found, num_classes, classes)) for found in files)


def _class_of(found: FoundImage, num_classes: int | None, classes: int | Mapping[str, int] | None) -> int | None:
    if num_classes is None:
        return None
    label = found.label if classes is None else classes if isinstance(classes, int) else classes.get(found.name)
    if label is None or not 0 <= label < num_classes:
        given = "no class is given" if label is None else f"class {label} is given"
        allowed = f"this class-conditional model needs a class from 0 to {num_classes - 1} per file"
        raise ConfigError(f"{found.name}: {given}; {allowed}")
    return label


def read_labels(path: Path) -> dict[str, int]:
    """Read a CSV or Parquet file with the columns `path` (relative to the given folder) and `label` (0 or more).

    The labels are those of a class-conditional model.

    Raises:
        InputError: the file is no such file, lacks a column, repeats a path, or a label is not a whole number; names
            the row.
        StorageError: the file cannot be read.
    """
    labels: dict[str, int] = {}
    for place, row in read_rows(str(path), (("path",), ("label",))):
        name, label = row["path"], row["label"]
        if name in labels:
            raise InputError(f"{place}: {name} occurs twice")
        if not label.strip().isdecimal():
            raise InputError(f"{place}: the label of {name} is {label!r}; a number of 0 or more is needed")
        labels[name] = int(label)
    return labels
