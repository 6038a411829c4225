"""Atomic writes of files and folders, and checksums of files."""

import contextlib
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from rediffuse.errors import StorageError

_PARTIAL = re.compile(r"\..+(\.\w+)\.[0-9a-f]{8}\1")
"""The names of the temporary files of `atomic_write`, such as `.map.png.0c3f81ab.png`."""


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; after the block, flush the file to disk and rename it to `path`.

    If the block raises an exception, the temporary file is removed and an existing file `path` is unchanged.

    Raises:
        StorageError: the disk is full, or the folder cannot be written to; names `path` and the system's reason.
    """
    partial = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}{path.suffix}")
        beside.touch(exist_ok=False)  # with the permissions of the umask, unlike a file of tempfile
        partial = beside
        rights = partial.stat().st_mode
        yield partial
        partial.chmod(rights)  # safetensors replaces the file with one that only its owner may read
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    except OSError as error:
        raise StorageError(f"{path}: could not be written: {error.strerror or error}") from error
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; after the block, rename it to `path`.

    A folder `path` that is there is replaced with all its content. If the block raises an exception, the temporary
    folder is removed and an existing folder `path` is unchanged.

    Raises:
        StorageError: the folder cannot be written; names `path` and the system's reason.
    """
    path = path.absolute()
    partial, old = (path.with_name(f".{path.name}.{secrets.token_hex(4)}") for _ in range(2))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        yield partial
        if path.exists():
            path.rename(old)
        partial.rename(path)
    except OSError as error:
        if old.exists() and not path.exists():
            old.rename(path)
        raise StorageError(f"{path}: could not be written: {error.strerror or error}") from error
    finally:
        for folder in (partial, old):
            shutil.rmtree(folder, ignore_errors=True)


def remove_partial(folder: Path, *, below: bool = True) -> None:
    """Remove the temporary files that `atomic_write` left in `folder`, and below it, if its process was killed.

    No other process may write to the folder at the same time.

    Raises:
        StorageError: a file cannot be removed; names it.
    """
    for path in folder.rglob(".*") if below else folder.glob(".*"):
        if _PARTIAL.fullmatch(path.name):
            remove(path)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically (see `atomic_write`)."""
    with atomic_write(path) as partial:
        partial.write_bytes(content)


def remove(path: Path) -> None:
    """Remove a file if it exists.

    Raises:
        StorageError: the file exists and cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{path}: could not be removed: {error.strerror or error}") from error


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
