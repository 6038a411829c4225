"""The manifest of results in a store: it is kept on this machine while a job runs, and copied to the store."""

import contextlib
import dataclasses
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rediffuse import files
from rediffuse.dire.manifest import TABLE, Manifest, Row
from rediffuse.errors import InputError
from rediffuse.stores import StoreFolder, put_file

_SECONDS, _ROWS = 60.0, 1000
"""New rows are copied to the store after this time, or if there are so many."""


@contextlib.contextmanager
def open_manifest(
    folder: Path | StoreFolder, cache: Path, part: str = "", prepare: Callable[[bool], None] | None = None
) -> Iterator[Manifest]:
    """The manifest of a folder of results, open for adding rows (see `Manifest`).

    That of a folder in a store is copied to `cache` first. New rows are copied to the store from time to time, and the
    whole table at the end. So a killed job can go on elsewhere; the results of its last minute are computed again.

    Args:
        folder: the folder of the results.
        cache: a folder on this machine, for results in a store.
        part: see `Manifest`; not for a folder in a store.
        prepare: see `Manifest`.

    Raises:
        StorageError, InputError: see `Manifest`; or the store cannot be read or written.
    """
    if isinstance(folder, Path):
        with Manifest(folder, part, prepare) as manifest:
            yield manifest
        return
    if part:
        raise InputError(f"{folder}: several processes need a folder on a disk that they share, or one process")
    here = cache / "jobs" / hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    table, new_rows = here / TABLE, folder / "manifest"

    def fetch(is_alone: bool) -> None:
        if (folder / TABLE).exists():
            files.write_bytes(table, (folder / TABLE).read_bytes())
        else:
            files.remove(table)
        if prepare:
            prepare(is_alone)

    try:
        with _Copied(here, new_rows, fetch) as manifest:
            yield manifest
    finally:
        if table.exists():
            put_file(str(folder / TABLE), table)
            for copied in new_rows.names():
                (new_rows / copied).remove()


class _Copied(Manifest):
    """A manifest whose new rows are copied to a folder in a store, in files of JSON lines."""

    def __init__(self, folder: Path, copies: StoreFolder, prepare: Callable[[bool], None]) -> None:
        super().__init__(folder, prepare=prepare)
        self._copies, self._new, self._copying = copies, list[Row](), threading.Lock()
        self._copied = time.monotonic()
        names = copies.names()
        for name in names:  # of a job that was killed on another machine
            for line in (copies / name).read_bytes().splitlines():
                super().add(Row(**json.loads(line)))
        self._number = int(Path(names[-1]).stem) + 1 if names else 0

    def add(self, row: Row) -> None:
        super().add(row)
        with self._copying:
            self._new.append(row)
            if len(self._new) >= _ROWS or time.monotonic() > self._copied + _SECONDS:
                lines = "".join(json.dumps(dataclasses.asdict(one)) + "\n" for one in self._new)
                (self._copies / f"{self._number:08}.jsonl").write_bytes(lines.encode())
                self._new.clear()
                self._number += 1
                self._copied = time.monotonic()
