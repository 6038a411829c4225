"""The rows of a table of verdicts that is not complete yet, in a folder beside it: TABLE.parts.

    record.json     everything beside the files on which the verdicts depend
    PART.jsonl      one row per line: a number that grows when the work is continued, the file's SHA-256, and the row

A killed process loses nothing but the row that it was writing, and a power cut the rows of the last second. Several
processes may add rows at the same time, each to a file of its own.
"""

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from rediffuse.detection.verdict import Verdict
from rediffuse.errors import SettingsMismatch, StorageError
from rediffuse.files import claim, remove, write_bytes
from rediffuse.images.find import FoundImage
from rediffuse.records import read_json
from rediffuse.report.tables import Row
from rediffuse.threads import in_threads

_SYNC_SECONDS = 1.0
"""Time between two calls that write rows through to the disk."""


class TableParts:
    """The rows so far. A `with` block claims their folder (see `files.claim`), and opens a file for more.

    Args:
        table: the table that the rows are for.
        record: everything beside the files on which the verdicts depend, as plain JSON values.
        part: the name of this process among several that share the table; empty for a single process.
        force: remove rows with another record, unless another process adds to them.

    Raises:
        SettingsMismatch: the rows have another record; names what differs.
        StorageError: another process adds rows of this part, or, for a single process, of any part; or the folder
            cannot be written to.
    """

    def __init__(self, table: Path, record: Mapping[str, Any], *, part: str = "", force: bool = False) -> None:
        self.folder = self.folder_of(table)
        self._record = dict(record)
        self._part = part
        self._force = force
        self._synced = time.monotonic()

    @staticmethod
    def folder_of(table: Path) -> Path:
        return table.with_name(f"{table.name}.parts")

    def __enter__(self) -> Self:
        path = self.folder / f"{self._part or 'rows'}.jsonl"
        with contextlib.ExitStack() as opened:
            opened.enter_context(claim(self.folder, shared=bool(self._part), prepare=self._prepare))
            with self._writing(path):
                self._adding = opened.enter_context(path.open("ab"))
                fcntl.flock(self._adding, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._adding.write(b"\n")  # ends an incomplete line, which a killed process left
            self._lines = self._read()
            self._round = 1 + max((number for number, _, _ in self._lines.values()), default=0)
            self._closing = opened.pop_all()
        self._is_empty = not self._lines
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_empty and not self._part:
            self.remove()
        self._closing.close()

    def kept(self, files: Sequence[FoundImage], *, workers: int) -> dict[str, Row]:
        """The rows of those of `files` that were judged before and have not changed (SHA-256) since, by name.

        A file that could not be judged is not among them: it is tried again, since the cause may be corrected.
        """
        there = [found for found in files if found.name in self._lines]

        def is_kept(found: FoundImage) -> bool:
            _, sha256, row = self._lines[found.name]
            return row["decision"] is not None and sha256 == found.sha256()

        kept = in_threads(is_kept, there, workers, ahead=64)
        return {found.name: self._lines[found.name][2] for found, is_one in zip(there, kept, strict=True) if is_one}

    def add(self, verdict: Verdict) -> None:
        """Add a row.

        Raises:
            StorageError: the disk is full.
        """
        self._is_empty = False
        with self._writing(Path(self._adding.name)):
            self._adding.write(json.dumps([self._round, verdict.sha256, verdict.to_row()]).encode() + b"\n")
            self._adding.flush()
            if time.monotonic() > self._synced + _SYNC_SECONDS:
                os.fsync(self._adding.fileno())
                self._synced = time.monotonic()

    def rows(self, files: Sequence[FoundImage]) -> list[Row] | None:
        """The rows of all these files, in their order, whichever process added them; None if one is missing."""
        lines = self._read()
        if not all(found.name in lines for found in files):
            return None
        return [lines[found.name][2] for found in files]

    def remove(self) -> None:
        """Remove the folder, after the table was written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _prepare(self, is_alone: bool) -> None:
        """Write the record, or compare it."""
        path = self.folder / "record.json"
        there = read_json(path) if path.exists() else self._record
        differing = [
            f"{name}={self._record.get(name)} (there {there.get(name)})"
            for name in dict.fromkeys((*self._record, *there))
            if self._record.get(name) != there.get(name)
        ]
        if differing and not (self._force and is_alone):
            raise SettingsMismatch(
                f"{self.folder}: holds verdicts with other settings: {', '.join(differing)}; --force replaces them"
            )
        if differing:
            for part in self.folder.glob("*.jsonl"):
                remove(part)
        if differing or not path.exists():
            write_bytes(path, (json.dumps(self._record, indent=2) + "\n").encode())

    def _read(self) -> dict[str, tuple[int, str | None, dict[str, Any]]]:
        """The newest line of each name. A damaged line counts as missing, so its file is judged again."""
        lines: dict[str, tuple[int, str | None, dict[str, Any]]] = {}
        for part in self.folder.glob("*.jsonl"):
            for line in part.read_bytes().splitlines():
                with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
                    number, sha256, row = json.loads(line)
                    if row["file"] not in lines or lines[row["file"]][0] <= number:
                        lines[row["file"]] = number, sha256, row
        return lines

    @staticmethod
    @contextlib.contextmanager
    def _writing(path: Path) -> Iterator[None]:
        try:
            yield
        except BlockingIOError:
            raise StorageError(f"{path}: another process is writing to this file; wait until it ends") from None
        except OSError as error:
            raise StorageError(f"{path}: could not be written: {error.strerror or error}") from error
