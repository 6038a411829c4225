"""Read the class of every file from a CSV file."""

import csv
from collections.abc import Sequence
from pathlib import Path

from rediffuse.errors import InputError


def read_labels(path: Path) -> dict[str, int]:
    """Read a CSV file with the columns `path` (relative to the given folder) and `label` (0 or more).

    The labels are those of a class-conditional model.

    Raises:
        InputError: the file cannot be read, lacks a column, repeats a path, or a label is not a whole number; names
            the line.
    """
    labels: dict[str, int] = {}
    for line, row in read_rows(path, ("path", "label")):
        name, label = row["path"], row["label"]
        if name in labels:
            raise InputError(f"{path}: line {line}: {name} occurs twice")
        if not label.strip().isdecimal():
            raise InputError(f"{path}: line {line}: the label of {name} is {label!r}; a number of 0 or more is needed")
        labels[name] = int(label)
    return labels


def read_rows(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV file, each with the number of its line; the fields that are missing at its end are empty.

    Args:
        path: the file, UTF-8, with or without the mark at its beginning that spreadsheet programs write.
        columns: the columns that are needed; it may have others.

    Raises:
        InputError: the file cannot be read, or lacks a column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            given = reader.fieldnames or []
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a CSV file: {error}") from None
    if not set(columns) <= set(given):
        needed = " and ".join(columns)
        raise InputError(f"{path}: the columns {needed} are needed, given {', '.join(given) or 'nothing'}")
    return rows
