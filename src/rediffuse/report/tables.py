"""Verdicts as a table: as text for a terminal, or as a CSV, JSON or Parquet file."""

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rediffuse.detection.verdict import Verdict
from rediffuse.errors import InputError
from rediffuse.files import atomic_write
from rediffuse.images.decode import printable

SHOWN_COLUMNS = ("file", "decision", "probability", "mean DIRE", "reason")


def write_table(path: Path, verdicts: Sequence[Verdict]) -> None:
    """Write one row per verdict (`Verdict.to_row`) in the format of the suffix: .csv, .json or .parquet.

    A missing number is an empty field in CSV and null in JSON and Parquet. In CSV an apostrophe is put before a file
    name that a spreadsheet program would read as a formula.

    Raises:
        InputError: another suffix.
        StorageError: the table cannot be written.
    """
    check_table_path(path)
    rows = [verdict.to_row() for verdict in verdicts]
    with atomic_write(path) as partial:
        _WRITERS[path.suffix.lower()](partial, rows)


def check_table_path(path: Path) -> None:
    """Raise InputError unless the suffix names a format that `write_table` supports."""
    if path.suffix.lower() not in _WRITERS:
        raise InputError(f"{path}: the name of a table must end in one of {', '.join(_WRITERS)}")


def csv_text(verdicts: Sequence[Verdict]) -> str:
    """The text of a .csv file that `write_table` writes."""
    return _csv([verdict.to_row() for verdict in verdicts])


def text_table(verdicts: Sequence[Verdict]) -> str:
    """The most important columns as aligned text, without a newline at the end."""
    rows = [SHOWN_COLUMNS, *map(_shown, verdicts)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(_aligned(row, widths) for row in rows)


def _shown(verdict: Verdict) -> tuple[str, ...]:
    def number(value: float | None, digits: int) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    decision = verdict.decision or "not judged"
    values = number(verdict.probability, 3), number(verdict.mean_dire, 4)
    return printable(Path(verdict.file)), decision, *values, verdict.reason or ""


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    file, decision, *numbers, reason = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
    return "  ".join([file, decision, *(number.strip().rjust(len(number)) for number in numbers), reason]).rstrip()


def _columns(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The columns of all rows in order of appearance. Rows differ: a file that was not judged has no bands."""
    return list(dict.fromkeys(name for row in rows for name in row))


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text(_csv(rows), encoding="utf-8", newline="")


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _columns(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _harmless(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value


def _write_json(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    numbers = [{name: _number_or_none(value) for name, value in row.items()} for row in rows]
    path.write_text(json.dumps(numbers, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _number_or_none(value: Any) -> Any:
    """None for NaN and infinity, which JSON has not."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_parquet(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    columns = {name: [row.get(name) for row in rows] for name in _columns(rows)}
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


_WRITERS: dict[str, Callable[[Path, Sequence[dict[str, Any]]], None]] = {
    ".csv": _write_csv,
    ".json": _write_json,
    ".parquet": _write_parquet,
}
