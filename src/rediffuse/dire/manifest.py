"""The manifest of a job: a Parquet table with one row per file, and journals that keep the rows of a killed job.

The table is sorted by name, and the statistics of its row groups say where a name is; the journals are SQLite files. So
neither a look-up nor the merging of them, when the job ends, holds more than one group in memory.
"""

import contextlib
import dataclasses
import heapq
import itertools
import json
import logging
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from rediffuse import files
from rediffuse.dire.shards import FOLDER, Place, Shards
from rediffuse.errors import InputError
from rediffuse.journal import SUFFIX, Journal
from rediffuse.records import parse

LOGGER = logging.getLogger(__name__)

_GROUP = 4096
"""Rows of a row group of the table."""
TABLE = "manifest.parquet"
_JOURNAL = "manifest.journal"
_OF_EARLIER_VERSIONS = "manifest.journal.jsonl"


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
    shard: str | None = None
    """The tar file in `shards/` that holds the results; None if they are files of their own."""
    shard_begin: int | None = None
    """The first byte of the results in the shard."""
    shard_end: int | None = None
    """The byte after the last one."""

    @property
    def place(self) -> Place | None:
        """The place in the shard."""
        if self.shard is None or self.shard_begin is None or self.shard_end is None:
            return None
        return Place(self.shard, self.shard_begin, self.shard_end)

    def at(self, place: Place | None) -> "Row":
        """The same row with results at another place."""
        shard, begin, end = place or (None, None, None)
        return dataclasses.replace(self, shard=shard, shard_begin=begin, shard_end=end)


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
        ("shard", pa.string()),
        ("shard_begin", pa.int64()),
        ("shard_end", pa.int64()),
    ]
)
_FIRST_COLUMNS = 11
"""Columns of the tables of the first version."""
assert _SCHEMA.names == [field.name for field in dataclasses.fields(Row)]


class Manifest:
    """`manifest.parquet` in a folder, open for adding rows, from any thread.

    `add` writes a row to a journal; `close` merges the journals into the table and removes them. A killed job leaves
    its journal; the next one to open the folder reads it. A power cut loses the rows of at most the last second, whose
    files are computed again.
    """

    def __init__(self, folder: Path, part: str = "", prepare: Callable[[bool], None] | None = None) -> None:
        """Open the manifest of `folder`, which is created if missing.

        Args:
            folder: the folder of the results.
            part: the part of the work that this process does, such as "0-of-2"; several processes may then have the
                folder, each with another part. Without a part, one process has it.
            prepare: see `files.claim`.

        Raises:
            StorageError: the folder cannot be written to, or another process has it.
            InputError: the table is damaged, and names the file; or the folder is a file.
        """
        self._getting = threading.Lock()
        with contextlib.ExitStack() as claimed:
            claimed.enter_context(
                files.claim(folder, shared=bool(part), prepare=prepare, finish=lambda: _compact(folder))
            )
            self._table = _Table(folder / TABLE)
            self._early = {row.name: row for row in _read_early_journal(folder)}
            own = folder / f"{_JOURNAL}{'.' if part else ''}{part}{SUFFIX}"
            of_this_job = part.partition("-of-")[2]
            self._left = [
                claimed.enter_context(contextlib.closing(Journal(path)))
                for path in _journals(folder)
                if path != own and not (part and path.stem.endswith(f"-of-{of_this_job}"))
            ]
            self._journal = claimed.enter_context(contextlib.closing(Journal(own)))
            self._claimed = claimed.pop_all()

    def __enter__(self) -> "Manifest":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def get(self, name: str) -> Row | None:
        """The row of this name, unless another process has added it."""
        with self._getting:
            return _get(name, (self._journal, *self._left), self._early, self._table)

    def add(self, row: Row) -> None:
        """Set the row of `row.name`, and write it to the disk.

        Raises:
            StorageError: the disk is full.
        """
        self._journal.add(row.name, dataclasses.asdict(row))

    def close(self) -> None:
        """Release the folder; the last process that has it merges all journals into the table.

        Raises:
            StorageError: the disk is full.
        """
        self._table.close()
        self._claimed.close()


@contextlib.contextmanager
def looked_up(folder: Path) -> Iterator[Callable[[str], Row | None]]:
    """A function from a name to its row, for one thread, during the block; the folder is not changed.

    Raises:
        InputError: the table is damaged; names the file.
    """
    with contextlib.ExitStack() as opened:
        table = opened.enter_context(contextlib.closing(_Table(folder / TABLE)))
        journals = [opened.enter_context(contextlib.closing(Journal(path))) for path in _journals(folder)]
        early = {row.name: row for row in _read_early_journal(folder)}
        yield lambda name: _get(name, journals, early, table)


def read(folder: Path) -> list[Row]:
    """The rows of `each_row` as a list."""
    return list(each_row(folder))


def each_row(folder: Path) -> Iterator[Row]:
    """The rows of a folder's manifest, the latest for each name, sorted by name; also those of a killed job.

    Raises:
        InputError: the table is damaged; names the file.
    """
    with contextlib.ExitStack() as opened:
        table = opened.enter_context(contextlib.closing(_Table(folder / TABLE)))
        journals = [opened.enter_context(contextlib.closing(Journal(path))) for path in _journals(folder)]
        early = sorted(_read_early_journal(folder), key=lambda row: row.name)
        sources = [*map(_of_journal, journals), ((row.name, row) for row in early), ((row.name, row) for row in table)]
        last = None
        for name, row in heapq.merge(*sources, key=lambda named: named[0]):  # of equal names, the first source's first
            if name != last:
                yield row
            last = name


def _get(name: str, journals: Iterable[Journal], early: Mapping[str, Row], table: "_Table") -> Row | None:
    for journal in journals:
        if (found := journal.get(name)) is not None:
            return Row(**found)
    return early.get(name) or table.get(name)


def _of_journal(journal: Journal) -> Iterator[tuple[str, Row]]:
    return ((name, Row(**row)) for name, row in journal)


def _journals(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{_JOURNAL}*{SUFFIX}"))


def _compact(folder: Path) -> None:
    """Merge all journals into the table, which is written again only if they have rows."""
    journals = [Journal(path) for path in _journals(folder)]
    num_rows = sum(map(len, journals))
    for journal in journals:
        journal.close()
    early = folder / _OF_EARLIER_VERSIONS
    moved: dict[Place, Place] = {}
    if num_rows or early.exists():
        if (folder / FOLDER).exists():
            moved = Shards(folder).tidy(lambda: (row.place for row in each_row(folder) if row.place))
        rows = each_row(folder)
        _write(folder / TABLE, (row.at(moved.get(row.place, row.place)) if row.place else row for row in rows))
    for journal in journals:
        journal.remove()
    files.remove(early)
    # Until here a killed process leaves rows whose places are valid.
    Shards(folder).remove({place.shard for place in moved})


def _write(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as a Parquet file, atomically.

    Raises:
        StorageError: see `files.atomic_write`.
    """
    rows = iter(rows)
    with files.atomic_write(path) as partial, pq.ParquetWriter(partial, _SCHEMA) as writer:
        while group := [dataclasses.asdict(row) for row in itertools.islice(rows, _GROUP)]:
            writer.write_table(pa.Table.from_pylist(group, schema=_SCHEMA))


class _Table:
    """A table of rows that is sorted by name, of which one row group at a time is in memory; empty if missing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._first_names: list[str] = []
        self._file: pq.ParquetFile | None = None
        self._group: tuple[int, pa.Table, dict[str, int]] | None = None
        if not path.exists():
            return
        with self._described():
            self._file = pq.ParquetFile(path, pre_buffer=False)
        names = self._file.schema_arrow.names
        # Tables of earlier versions lack the last columns.
        if not (names == _SCHEMA.names[: len(names)] and len(names) >= _FIRST_COLUMNS):
            self._file.close()
            given = ", ".join(names)
            raise InputError(f"{path}: is not a manifest (its columns are {given}); remove it or choose another folder")
        groups = map(self._file.metadata.row_group, range(self._file.num_row_groups))
        self._first_names = [group.column(0).statistics.min for group in groups]

    def get(self, name: str) -> Row | None:
        index = bisect_right(self._first_names, name) - 1
        if index < 0:
            return None
        if self._group is None or self._group[0] != index:
            group = self._read(index)
            self._group = index, group, {name: place for place, name in enumerate(group.column(0).to_pylist())}
        _, group, places = self._group
        return None if name not in places else Row(**group.slice(places[name], 1).to_pylist()[0])

    def __iter__(self) -> Iterator[Row]:
        for index in range(len(self._first_names)):
            for fields in self._read(index).to_pylist():
                yield Row(**fields)

    def close(self) -> None:
        if self._file:
            self._file.close()

    def _read(self, group: int) -> pa.Table:
        assert self._file
        with self._described():
            return self._file.read_row_group(group)

    @contextlib.contextmanager
    def _described(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"{self._path}: is not a manifest ({reason}); remove it or choose another folder"
            ) from error


def _read_early_journal(folder: Path) -> list[Row]:
    """The rows of a job of an earlier version that was killed. Damaged lines are left out, with a warning."""
    path = folder / _OF_EARLIER_VERSIONS
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]  # the text after the last newline is incomplete
    rows = []
    for line in lines:
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            rows.append(parse(Row, dict(json.loads(line)), str(path)))
    if len(rows) < len(lines):
        damaged = len(lines) - len(rows)
        LOGGER.warning("%s: %d of %d lines are damaged; their files are processed again", path, damaged, len(lines))
    return list({row.name: row for row in rows}.values())
