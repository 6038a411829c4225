"""Verdicts as a table: as text for a terminal, or as a CSV, JSON or Parquet file. There may be millions of rows."""

import csv
import heapq
import io
import itertools
import json
import math
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TextIO

from rediffuse import stores
from rediffuse.errors import InputError
from rediffuse.files import atomic_write
from rediffuse.images.decode import printable
from rediffuse.journal import Journal

SHOWN_COLUMNS = ("file", "decision", "probability", "mean DIRE", "reason")
_GROUP = 4096
"""Rows of a Parquet file that are written together."""

Row = Mapping[str, Any]
"""One row: `Verdict.to_row`."""


class TableRows(Collection[Row]):
    """The rows in journals on disk, in the order of their keys; they are read anew in each iteration."""

    def __init__(self, journals: Sequence[Journal]) -> None:
        self.journals = journals

    def __iter__(self) -> Iterator[Row]:
        return (row for _, row in heapq.merge(*self.journals, key=lambda keyed: keyed[0]))

    def __len__(self) -> int:
        return sum(map(len, self.journals))

    def __contains__(self, row: object) -> bool:
        return any(one == row for one in self)


def write_table(path: Path | str, rows: Collection[Row]) -> None:
    """Write rows in the format of the suffix: .csv, .json or .parquet. They are not held in memory.

    A missing number is an empty field in CSV and null in JSON and Parquet. In CSV an apostrophe is put before a file
    name that a spreadsheet program would read as a formula.

    Args:
        path: the path or URL of the file.
        rows: see `Verdict.to_row`.

    Raises:
        InputError: another suffix, or a URL that cannot be opened.
        StorageError: the table cannot be written.
    """
    check_table_path(path)
    write = _WRITERS[PurePosixPath(path).suffix.lower()]
    if stores.is_url(path):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / PurePosixPath(path).name
            write(file, rows)
            stores.put_file(str(path), file)
    else:
        with atomic_write(Path(path)) as partial:
            write(partial, rows)


def check_table_path(path: Path | str) -> None:
    """Raise InputError unless the suffix names a format that `write_table` supports."""
    if PurePosixPath(path).suffix.lower() not in _WRITERS:
        raise InputError(f"{path}: the name of a table must end in one of {', '.join(_WRITERS)}")


def csv_lines(rows: Collection[Row]) -> Iterator[str]:
    """The lines of a .csv file that `write_table` writes; a field may hold more than one line."""
    text = io.StringIO(newline="")
    for _ in _written_csv(text, rows):
        yield text.getvalue().removesuffix("\n")
        text.seek(0)
        text.truncate()


def json_parts(rows: Collection[Row]) -> Iterator[str]:
    """The text of a .json file that `write_table` writes, in parts."""
    before = "[\n"
    for row in rows:
        numbers = {name: _number_or_none(value) for name, value in row.items()}
        yield before + json.dumps(numbers, allow_nan=False)
        before = ",\n"
    yield "\n]\n" if rows else "[]\n"


def text_table(rows: Sequence[Row]) -> str:
    """The most important columns as aligned text, without a newline at the end."""
    lines = [SHOWN_COLUMNS, *map(_shown, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(_aligned(line, widths) for line in lines)


def _shown(row: Row) -> tuple[str, ...]:
    def number(value: float | None, digits: int) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    values = number(row["probability"], 3), number(row["mean_dire"], 4)
    return printable(Path(row["file"])), row["decision"] or "not judged", *values, row["reason"] or ""


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    file, decision, *numbers, reason = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
    return "  ".join([file, decision, *(number.strip().rjust(len(number)) for number in numbers), reason]).rstrip()


def _columns(rows: Collection[Row]) -> dict[str, set[type]]:
    """The columns of all rows in order of appearance, and the types of their values.

    Rows differ: a file that was not judged has no bands.
    """
    columns: dict[str, set[type]] = {}
    for row in rows:
        for name, value in row.items():
            kinds = columns.setdefault(name, set())
            if value is not None:
                kinds.add(type(value))
    return columns


def _write_csv(path: Path, rows: Collection[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        for _ in _written_csv(file, rows):
            pass


def _written_csv(file: TextIO, rows: Collection[Row]) -> Iterator[None]:
    """Write the heading and then each row, one per step."""
    writer = csv.DictWriter(file, list(_columns(rows)), lineterminator="\n")
    writer.writeheader()
    yield
    for row in rows:
        writer.writerow({name: _harmless(value) for name, value in row.items()})
        yield


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value


def _write_json(path: Path, rows: Collection[Row]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json_parts(rows))


def _number_or_none(value: Any) -> Any:
    """None for NaN and infinity, which JSON has not."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_parquet(path: Path, rows: Collection[Row]) -> None:
    import pyarrow
    import pyarrow.parquet

    arrow = {str: pyarrow.string(), float: pyarrow.float64(), int: pyarrow.int64()}
    schema = pyarrow.schema(
        [
            (name, next((arrow[kind] for kind in arrow if kind in kinds), pyarrow.null()))
            for name, kinds in _columns(rows).items()
        ]
    )
    left = iter(rows)
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        while group := list(itertools.islice(left, _GROUP)):
            columns = {name: [row.get(name) for row in group] for name in schema.names}
            writer.write_table(pyarrow.table(columns, schema=schema))


_WRITERS: dict[str, Callable[[Path, Collection[Row]], None]] = {
    ".csv": _write_csv,
    ".json": _write_json,
    ".parquet": _write_parquet,
}
