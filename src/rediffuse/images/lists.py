"""Lists of images: CSV and Parquet files with a column of paths, read row by row."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO

from rediffuse import stores
from rediffuse.errors import InputError
from rediffuse.images.decode import printable
from rediffuse.images.names import safe_name
from rediffuse.images.stored import StoredFile

SUFFIXES = (".csv", ".parquet")
PATH_COLUMNS = ("path", "file")
"""The columns of which a list has one."""
LABELS = {"real": 0, "generated": 1}
"""Words for labels in lists, beside numbers from 0."""
_COLUMNS = (*PATH_COLUMNS, "label", "group")
_ROWS, _BUFFER = 1024, 1 << 20
"""Rows of a Parquet file that are decoded together, and bytes of a column that are read together."""


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A row of a list."""

    path: Path | StoredFile
    """The file, which may not exist."""
    name: str
    """The path in the list, as `names.safe_name`."""
    label: int | None
    """None if the list has no column `label`, or the field is empty."""
    group: str
    """The column `group`, or empty."""
    place: str
    """That of the row in messages: `list.csv: line 7`."""


def is_list(path: str) -> bool:
    """Whether a path or URL is that of a list, by its suffix."""
    return path.lower().endswith(SUFFIXES)


def listed_files(path: str) -> Iterator[ListedFile]:
    """The files in a list.

    Args:
        path: the path or URL of a CSV or Parquet file with the column path or file, and optionally label and group.
            Paths are absolute, URLs, or relative to the folder of the list.

    Raises:
        InputError: it is no such file, lacks the column, a row names no file, or a label is neither a number of 0 or
            more nor a word of `LABELS`; names the row.
        StorageError: it cannot be read.
    """
    for place, row in read_rows(path, [PATH_COLUMNS]):
        name = next(row[column] for column in PATH_COLUMNS if column in row)
        if not name:
            raise InputError(f"{place}: names no file")
        label = label_of(row.get("label", ""), f"{place}: the label of {printable(name)}")
        yield ListedFile(_file(path, name), str(safe_name(name)), label, row.get("group", "").strip("/ "), place)


def read_rows(path: str, columns: Sequence[Sequence[str]]) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a CSV or Parquet file as text, each with its place in messages; missing fields are empty.

    Args:
        path: the path or URL. CSV is UTF-8, with or without the mark at its beginning that spreadsheet programs write.
        columns: the columns that are needed, each with its alternatives; the file may have others.

    Raises:
        InputError: it is no such file, or lacks a column.
        StorageError: it cannot be read.
    """
    shown, is_parquet = printable(path), path.lower().endswith(".parquet")
    with stores.open_file(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        given, rows = _parquet_rows(file, shown) if is_parquet else _csv_rows(text, shown)
        if not all(set(names) & set(given) for names in columns):
            needed = " and ".join(" or ".join(names) for names in columns)
            verb = "columns {} are" if len(columns) > 1 else "column {} is"
            raise InputError(f"{shown}: the {verb.format(needed)} needed, given {', '.join(given) or 'nothing'}")
        for number, row in rows:
            yield f"{shown}: {'row' if is_parquet else 'line'} {number}", row


def label_of(text: str, where: str) -> int | None:
    """The label that a text stands for, None if it is empty; `where` is for the error.

    Raises:
        InputError: it is neither a number of 0 or more nor a word of `LABELS`.
    """
    text = text.strip()
    if not text or text in LABELS:
        return LABELS.get(text)
    if not text.isdecimal():
        raise InputError(f"{where} is {text!r}; a number of 0 or more, {' or '.join(LABELS)} is needed")
    return int(text)


def _csv_rows(text: TextIO, name: str) -> tuple[Sequence[str], Iterator[tuple[int, dict[str, str]]]]:
    """The columns and the rows; the errors of a file that is no CSV file come with the rows, or at once."""
    reader = csv.DictReader(text, restval="")

    def failed(error: Exception) -> InputError:
        return InputError(f"{name}: cannot be read as a CSV file: {error}")

    def rows() -> Iterator[tuple[int, dict[str, str]]]:
        try:
            for row in reader:
                yield reader.line_num, row
        except (UnicodeDecodeError, csv.Error) as error:
            raise failed(error) from None

    try:
        return reader.fieldnames or [], rows()
    except (UnicodeDecodeError, csv.Error) as error:
        raise failed(error) from None


def _parquet_rows(file: BinaryIO, name: str) -> tuple[Sequence[str], Iterator[tuple[int, dict[str, str]]]]:
    """The columns and the rows, of which only those that lists have are read."""
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER)
        given = table.schema_arrow.names
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{name}: cannot be read as a Parquet file: {stores.one_line(error)}") from None

    def rows() -> Iterator[tuple[int, dict[str, str]]]:
        number = 0
        for batch in table.iter_batches(_ROWS, columns=[column for column in _COLUMNS if column in given]):
            for row in batch.to_pylist():
                number += 1
                yield number, {column: "" if value is None else str(value) for column, value in row.items()}

    return given, rows()


def _file(source: str, path: str) -> Path | StoredFile:
    """The file that a list names."""
    if stores.is_url(path):
        return StoredFile(path)
    if stores.is_url(source) and not path.startswith("/"):
        return StoredFile(f"{source.rpartition('/')[0]}/{path}")
    return Path(source).parent / path
