"""Names of images, unique within one call, in constant memory."""

import hashlib
import itertools
import os
import re
import sqlite3
from pathlib import PurePosixPath


def safe_name(path: str) -> PurePosixPath:
    """A relative path without `..`, of valid Unicode without control characters, which tables and file systems store.

    Args:
        path: a path or URL; its root and protocol are left out.
    """
    return PurePosixPath(*map(safe_part, (part for part in path.split("://")[-1].split("/") if part not in _NO_NAMES)))


def safe_part(part: str) -> str:
    """One part of a path, as in `safe_name`."""
    return re.sub(r"[\x00-\x1f\x7f\\:]", "_", part.encode("utf-8", "replace").decode())


_NO_NAMES = ("", ".", "..")


class Names:
    """Chooses names and knows what was seen, in a temporary database that SQLite moves from memory to the disk."""

    def __init__(self) -> None:
        self._seen = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._seen.execute("CREATE TABLE seen (key BLOB PRIMARY KEY) WITHOUT ROWID")
        self._seen.execute("BEGIN")  # one transaction, which is never ended: nothing has to be kept

    def is_new(self, place: str) -> bool:
        """Whether this place of a file, such as its real path, is given for the first time."""
        return self._add(b"/" + os.fsencode(place))

    def choose(self, name: PurePosixPath, folder: str) -> str:
        """The name itself if it is new, also if case is ignored; otherwise with its folder in front, and a number."""
        numbered = (name.with_name(f"{name.stem}-{number}{name.suffix}") for number in itertools.count(2))
        candidates = itertools.chain((name, folder / name), (folder / one for one in numbered))
        return next(str(one) for one in candidates if self._add(str(one).casefold().encode()))

    def _add(self, key: bytes) -> bool:
        digest = hashlib.blake2b(key, digest_size=16).digest()
        return self._seen.execute("INSERT OR IGNORE INTO seen VALUES (?)", (digest,)).rowcount == 1
