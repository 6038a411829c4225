"""Read the class of every file from a CSV file, for class-conditional models."""

import csv
from pathlib import Path

from rediffuse.errors import InputError


def read_labels(path: Path) -> dict[str, int]:
    """Read a CSV file with the columns `path` (relative to the given folder) and `label` (0 or more).

    Raises:
        InputError: the file cannot be read, lacks a column, repeats a path, or a label is not a whole number; names
            the line.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a CSV file: {error}") from None
    if not {"path", "label"} <= set(columns):
        raise InputError(f"{path}: the columns path and label are needed, given {', '.join(columns) or 'nothing'}")
    labels: dict[str, int] = {}
    for line, row in rows:
        name, label = row["path"], row["label"]
        if name in labels:
            raise InputError(f"{path}: line {line}: {name} occurs twice")
        if label is None or not label.strip().isdecimal():
            raise InputError(f"{path}: line {line}: the label of {name} is {label!r}; a number of 0 or more is needed")
        labels[name] = int(label)
    return labels
