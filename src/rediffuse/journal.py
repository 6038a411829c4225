"""Rows of a long job on disk: nothing is held in memory, and a killed process damages none of them."""

import json
import logging
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rediffuse.errors import StorageError

LOGGER = logging.getLogger(__name__)

SUFFIX = ".sqlite"
_SYNC_SECONDS = 1.0
"""Time between two calls that write the rows through to the disk."""
_LOG_PAGES = 8192
"""Size of SQLite's log, in pages of 4 KiB, from which on it is moved into the database, which waits for the disk."""
_OPENING_SECONDS = 5.0
"""Time for which a journal is opened again and again, while another process creates it or opens it too."""
_BESIDE = ("", "-wal", "-shm")
"""What is appended to the name of a database, for the files that belong to it."""


class Journal:
    """Rows by key in an SQLite file, for one process that writes, from any of its threads.

    Each row is kept once `add` returns, also if the process is killed then. A power cut loses those of the last second.
    """

    def __init__(self, path: Path, *, is_temporary: bool = False) -> None:
        """Open a journal, which is created if missing; a damaged one is begun again, with a warning.

        Args:
            path: the file.
            is_temporary: nothing reads it after the end of this process, so that rows need not reach the disk.

        Raises:
            StorageError: it cannot be read or written.
        """
        self.path, self._is_temporary = path, is_temporary
        self._lock = threading.Lock()
        self._synced = time.monotonic()
        try:
            self._rows = self._opened_soon()
        except sqlite3.OperationalError as error:
            raise self._failed(error) from error
        except sqlite3.DatabaseError as error:
            LOGGER.warning("%s: is damaged (%s); what it recorded is processed again", path, error)
            self.remove()
            self._rows = self._opened()

    def add(self, key: str, row: Mapping[str, Any]) -> None:
        """Set the row of a key: plain values by name.

        Raises:
            StorageError: the disk is full.
        """
        text = json.dumps(row)
        try:
            with self._lock:
                is_due = not self._is_temporary and time.monotonic() > self._synced + _SYNC_SECONDS
                if is_due:
                    self._rows.execute("PRAGMA synchronous=FULL")
                self._rows.execute("INSERT OR REPLACE INTO rows VALUES (?, ?)", (key, text))
                if is_due:
                    self._rows.execute("PRAGMA synchronous=NORMAL")
                    self._synced = time.monotonic()
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def get(self, key: str) -> dict[str, Any] | None:
        """The row of a key."""
        with self._lock:
            found = self._rows.execute("SELECT row FROM rows WHERE key = ?", (key,)).fetchone()
        return None if found is None else json.loads(found[0])

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Keys and rows, sorted by key; none may be added meanwhile."""
        for key, row in self._rows.execute("SELECT key, row FROM rows ORDER BY key"):
            yield key, json.loads(row)

    def __len__(self) -> int:
        return self._rows.execute("SELECT count(*) FROM rows").fetchone()[0]

    def close(self) -> None:
        """Close the file, which stays."""
        self._rows.close()

    def remove(self) -> None:
        """Remove the file of a journal that is closed.

        Raises:
            StorageError: it cannot be removed.
        """
        for end in _BESIDE:
            try:
                self.path.with_name(self.path.name + end).unlink(missing_ok=True)
            except OSError as error:
                raise StorageError(f"{self.path}: could not be removed: {error.strerror or error}") from error

    def _opened_soon(self) -> sqlite3.Connection:
        until = time.monotonic() + _OPENING_SECONDS
        while True:
            try:
                return self._opened()
            except sqlite3.OperationalError as error:
                # The errors of two processes that create the same file; SQLite waits by itself only later.
                is_passing = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_IOERR)
                if not is_passing or time.monotonic() > until:
                    raise
            time.sleep(0.02)

    def _opened(self) -> sqlite3.Connection:
        rows = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            # A killed process leaves whole rows in every mode but OFF; in WAL a row does not wait for the disk.
            rows.execute(f"PRAGMA journal_mode={'OFF' if self._is_temporary else 'WAL'}")
            rows.execute(f"PRAGMA synchronous={'OFF' if self._is_temporary else 'NORMAL'}")
            rows.execute(f"PRAGMA wal_autocheckpoint={_LOG_PAGES}")
            rows.execute("CREATE TABLE IF NOT EXISTS rows (key TEXT PRIMARY KEY, row TEXT NOT NULL) WITHOUT ROWID")
            rows.execute("SELECT key, row FROM rows LIMIT 1")
            if self._is_temporary:
                rows.execute("BEGIN")  # one transaction without an end: rows are written when SQLite's cache is full
        except sqlite3.Error:
            rows.close()
            raise
        return rows

    def _failed(self, error: sqlite3.Error) -> StorageError:
        return StorageError(f"{self.path}: could not be written: {error}")
