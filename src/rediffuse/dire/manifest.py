"""The manifest of a job: a Parquet table with one row per file, and a journal that keeps the rows of a killed job."""

import contextlib
import dataclasses
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from rediffuse import files
from rediffuse.errors import InputError, RediffuseError, StorageError
from rediffuse.records import parse

LOGGER = logging.getLogger(__name__)

_SYNC_SECONDS = 1.0
"""Time between two calls that write the journal through to the disk."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """The result of one file."""

    name: str
    """The file's path relative to the given folder; unique in the manifest."""
    path: str
    """The file's absolute path."""
    sha256: str | None
    """SHA-256 of the file's bytes; None if they could not be read."""
    width: int | None
    """Width as stored, in pixels; None if the file could not be decoded."""
    height: int | None
    codec: str | None
    """The format of the content, such as "JPEG"; it may differ from the suffix."""
    label: int | None
    """The class that was given to a class-conditional model."""
    settings: str
    """Digest of the `DireSettings` (`records.digest`)."""
    mean_error: float | None
    """Mean of |x_0 - x_0_hat| over pixels and channels, in [0, 2]."""
    status: Literal["done", "failed"]
    reason: str | None
    """The error in one line; None if there was none."""
    windows: str | None = None
    """First row and column of each window, "0,16 24,8"; None if the whole image was reconstructed."""
    lpips: float | None = None
    """Mean LPIPS in the second layer of VGG16, AEROBLADE's distance; None if the model has no LPIPS."""


_SCHEMA = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        ("path", pa.string()),
        ("sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("codec", pa.string()),
        ("label", pa.int32()),
        ("settings", pa.string()),
        ("mean_error", pa.float64()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("windows", pa.string()),
        ("lpips", pa.float64()),
    ]
)
assert _SCHEMA.names == [field.name for field in dataclasses.fields(Row)]


class Manifest:
    """`manifest.parquet` in a folder, open for adding rows by one process at a time, from any of its threads.

    `add` appends a row to `manifest.journal.jsonl`; `close` writes the complete table and removes the journal. A killed
    job leaves the journal; the next one to open the folder reads both files. A power cut loses the rows of at most the
    last second, whose files are computed again.
    """

    def __init__(self, folder: Path) -> None:
        """Open the manifest of `folder`, which is created if missing.

        Raises:
            StorageError: the folder cannot be written to, or another process has its manifest open.
            InputError: the table is damaged, and names the file; or the folder is a file.
        """
        self._adding = threading.Lock()
        self._synced = time.monotonic()
        self._table = folder / "manifest.parquet"
        self._journal = folder / "manifest.journal.jsonl"
        with contextlib.ExitStack() as claimed:
            claimed.enter_context(files.claim(folder))
            self._rows = {row.name: row for row in read(folder)}
            self._truncate_torn_line()
            self._appending = self._journal.open("a", encoding="utf-8")
            self._claimed = claimed.pop_all()

    def __enter__(self) -> "Manifest":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows.values())

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, name: str) -> Row | None:
        return self._rows.get(name)

    def add(self, row: Row) -> None:
        """Set the row of `row.name`, and write it to the disk.

        Raises:
            StorageError: the disk is full.
        """
        try:
            with self._adding:
                self._appending.write(json.dumps(dataclasses.asdict(row)) + "\n")
                self._appending.flush()
                if time.monotonic() > self._synced + _SYNC_SECONDS:
                    os.fsync(self._appending.fileno())
                    self._synced = time.monotonic()
                self._rows[row.name] = row
        except OSError as error:
            raise StorageError(f"{self._journal}: could not be written: {error.strerror or error}") from error

    def close(self) -> None:
        """Write the complete table, sorted by name, remove the journal, and release the lock for other processes."""
        try:
            self._appending.close()
            if self._journal.stat().st_size:
                write(self._table, sorted(self._rows.values(), key=lambda row: row.name))
            self._journal.unlink()
        except OSError as error:
            raise StorageError(f"{self._journal}: could not be written: {error.strerror or error}") from error
        finally:
            self._claimed.close()

    def _truncate_torn_line(self) -> None:
        """Remove an incomplete last line that a killed process wrote, so that the next row starts on a new line."""
        if self._journal.exists():
            content = self._journal.read_bytes()
            os.truncate(self._journal, content.rfind(b"\n") + 1)


def read(folder: Path) -> list[Row]:
    """The rows of a folder's manifest, the latest for each name, also those of a killed job.

    Damaged lines of the journal, which a power cut may leave, are left out with a warning: their files count as not
    done.

    Raises:
        InputError: the table is damaged; names the file.
    """
    rows = {row.name: row for row in _read_table(folder / "manifest.parquet")}
    rows.update((row.name, row) for row in _read_journal(folder / "manifest.journal.jsonl"))
    return list(rows.values())


def write(path: Path, rows: list[Row]) -> None:
    """Write rows as a Parquet file, atomically.

    Raises:
        StorageError: see `files.atomic_write`.
    """
    with files.atomic_write(path) as partial:
        pq.write_table(pa.Table.from_pylist([dataclasses.asdict(row) for row in rows], schema=_SCHEMA), partial)


def _read_table(path: Path) -> list[Row]:
    if not path.exists():
        return []
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: is not a manifest ({reason}); remove it or choose another folder") from error
    given = table.schema.names
    if given in (_SCHEMA.names[:-2], _SCHEMA.names[:-1]):  # of earlier versions, without windows or LPIPS
        for field in [*_SCHEMA][len(given) :]:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    if not table.schema.equals(_SCHEMA):
        raise InputError(
            f"{path}: is not a manifest (its columns are {', '.join(given)}); remove it or choose another folder"
        )
    return [Row(**fields) for fields in table.to_pylist()]


def _read_journal(path: Path) -> list[Row]:
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]  # the text after the last newline is incomplete
    rows = []
    for line in lines:
        with contextlib.suppress(ValueError, TypeError, RecursionError, RediffuseError):
            rows.append(parse(Row, dict(json.loads(line)), str(path)))
    if len(rows) < len(lines):
        damaged = len(lines) - len(rows)
        LOGGER.warning("%s: %d of %d lines are damaged; their files are processed again", path, damaged, len(lines))
    return rows
