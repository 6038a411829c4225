"""The manifest of results in a store: it is kept on this machine while a job runs, and copied to the store."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from rediffuse import files
from rediffuse.dire.manifest import TABLE, Manifest
from rediffuse.stores import StoreFolder, put_file


@contextlib.contextmanager
def open_manifest(
    folder: Path | StoreFolder, cache: Path, part: str = "", prepare: Callable[[bool], None] | None = None
) -> Iterator[Manifest]:
    """The manifest of a folder of results, open for adding rows (see `Manifest`).

    That of a folder in a store is copied to `cache` first, and back at the end. A job that was killed goes on if it is
    started again with the same `cache`; elsewhere the results since its start are computed again.

    Args:
        folder: the folder of the results.
        cache: a folder on this machine, for results in a store.
        part: see `Manifest`.
        prepare: see `Manifest`.

    Raises:
        StorageError, InputError: see `Manifest`; or the store cannot be read or written.
    """
    if isinstance(folder, Path):
        with Manifest(folder, part, prepare) as manifest:
            yield manifest
        return
    here = cache / "jobs" / hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    table, there = here / TABLE, folder / TABLE

    def fetch(is_alone: bool) -> None:
        if is_alone:
            if there.exists():
                files.write_bytes(table, there.read_bytes())
            else:
                files.remove(table)
        if prepare:
            prepare(is_alone)

    try:
        with Manifest(here, part, fetch) as manifest:
            yield manifest
    finally:
        if table.exists():
            put_file(str(there), table)
