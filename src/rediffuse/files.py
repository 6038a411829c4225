"""Atomic writes of files and folders, the claim of a folder by one process, names of results, and checksums."""

import contextlib
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, overload

from rediffuse.errors import InputError, StorageError
from rediffuse.stores import StoreFolder

_LONGEST_PART = 200
"""Most bytes of one part of a name. File systems allow 255; suffixes of results and temporary files need the rest."""
_PARTIAL = re.compile(r"\..+(\.\w+)\.[0-9a-f]{8}\1")
"""The names of the temporary files of `atomic_write`, such as `.map.png.0c3f81ab.png`."""

CLAIM = ".rediffuse.lock"
"""The file in a folder whose lock says that a process writes to the folder. It is removed when the last one ends."""
_PATIENCE = 5.0
"""Seconds to wait while another process prepares a folder that both may use."""

_held: set[int] = set()
# A forked process, such as a worker that reads images, must not keep a claim when the process that made it is killed.
os.register_at_fork(after_in_child=lambda: [os.close(lock) for lock in _held])


@contextlib.contextmanager
def claim(
    folder: Path,
    *,
    shared: bool = False,
    prepare: Callable[[bool], None] | None = None,
    finish: Callable[[], None] | None = None,
) -> Iterator[None]:
    """Hold `folder` for this process during the block; the system releases it also when the process is killed.

    Temporary files that a killed process left in the folder are removed first.

    Args:
        folder: the folder, which is created if missing.
        shared: share it with other processes that claim it as shared, such as those of torchrun.
        prepare: called first, to write the folder's record or to compare it. Its argument is whether no other process
            has the folder meanwhile; it is false if others share the folder already.
        finish: called at the end by the last process that has the folder, which no other one gets meanwhile.

    Raises:
        StorageError: another process has the folder, or it cannot be written to.
        InputError: it is a file.
    """
    existed = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock, is_alone = _lock(folder, shared)
    except FileExistsError:
        raise InputError(f"{folder}: is a file; a folder is needed") from None
    except BlockingIOError:
        raise StorageError(f"{folder}: another process is writing to this folder; wait until it ends") from None
    except OSError as error:
        raise StorageError(f"{folder}: could not be written: {error.strerror or error}") from error
    _held.add(lock)
    try:
        if prepare:
            prepare(is_alone)
        if shared:
            fcntl.flock(lock, fcntl.LOCK_SH)
        yield
    finally:
        try:
            with contextlib.suppress(OSError):  # others still have it
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if finish:
                    finish()
                if os.fstat(lock).st_size:  # there were several, some of which may have been killed
                    remove_partial(folder)
                (folder / CLAIM).unlink(missing_ok=True)
                if not existed:
                    folder.rmdir()  # fails unless it is empty
        finally:
            _held.discard(lock)
            with contextlib.suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_UN)  # also for a child process that has a copy
            os.close(lock)


def _lock(folder: Path, shared: bool) -> tuple[int, bool]:
    """The descriptor of the folder's claim file, locked; exclusively if no other process has it, and whether it is."""
    path, until = folder / CLAIM, time.monotonic() + (_PATIENCE if shared else 0)
    while True:
        is_new = not path.exists()
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_alone = True
            except BlockingIOError:
                if not shared:
                    raise
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                is_alone = False
            # Another process may have removed the file between the two calls above: then it claims nothing.
            if path.exists() and path.stat().st_ino == os.fstat(lock).st_ino:
                if not is_alone:
                    os.write(lock, b".")
                elif not is_new:
                    remove_partial(folder)
                return lock, is_alone
        except BlockingIOError:
            if time.monotonic() > until:
                os.close(lock)
                raise
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)
        time.sleep(0.02)


@contextlib.contextmanager
def atomic_write(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; after the block, flush the file to disk and rename it to `path`.

    If the block raises an exception, the temporary file is removed and an existing file `path` is unchanged. Without
    `replace`, an existing file is never replaced, also one that another process writes at the same time.

    Raises:
        InputError: `path` exists, and `replace` is not given.
        StorageError: the disk is full, or the folder cannot be written to; names `path` and the system's reason.
    """
    with _written_beside(path, replace=replace) as (partial, file):
        rights = os.fstat(file.fileno()).st_mode
        file.close()
        yield partial
        partial.chmod(rights)  # safetensors replaces the file with one that only its owner may read
        with partial.open("rb") as written:
            os.fsync(written.fileno())


@contextlib.contextmanager
def _written_beside(path: Path, *, replace: bool = True) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file in the folder of `path`, and its path; renamed to `path` after the block. See `atomic_write`."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{path.suffix}")
    try:
        file = _new_file(partial)
        try:
            with file:
                yield partial, file
            if replace:
                partial.replace(path)
            else:
                _rename_to_new(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StorageError(f"{path}: could not be written: {error.strerror or error}") from error


def _new_file(path: Path) -> BinaryIO:
    """With the permissions of the umask, unlike a file of tempfile."""
    try:
        return path.open("xb")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("xb")


def _rename_to_new(partial: Path, path: Path) -> None:
    try:
        os.link(partial, path)
    except OSError as error:
        if path.exists():
            raise InputError(f"{path}: exists already; --force replaces it") from error
        partial.rename(path)  # on a file system without links
    else:
        partial.unlink()


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


def remove_partial(folder: Path) -> None:
    """Remove the temporary files that `atomic_write` left in `folder` and below it, if its process was killed.

    No other process may write to the folder at the same time.

    Raises:
        StorageError: a file cannot be removed; names it.
    """
    for path in folder.rglob(".*"):
        if _PARTIAL.fullmatch(path.name):
            remove(path)


def write_bytes(path: Path | StoreFolder, content: bytes) -> None:
    """Write `content` to `path` atomically (see `atomic_write`); in a store as one object."""
    if isinstance(path, StoreFolder):
        path.write_bytes(content)
    else:
        with _written_beside(path) as (_, file):
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


@overload
def result_path(folder: Path, name: str, suffix: str) -> Path: ...
@overload
def result_path(folder: StoreFolder, name: str, suffix: str) -> StoreFolder: ...
def result_path(folder: Path | StoreFolder, name: str, suffix: str) -> Path | StoreFolder:
    """The path in `folder` of a result of the image `name`.

    Args:
        folder: the folder of the results.
        name: a relative path with forward slashes and without `..`, such as `FoundImage.name`. A part that is too long
            for a file system is shortened; a hash keeps it unique.
        suffix: what is appended: `.png` gives `photo.jpg.png`.
    """
    parts = [_shortened(part) for part in PurePosixPath(name).parts]
    assert parts
    assert not {"/", ".."} & set(parts), f"{name} leads out of the folder"
    return folder.joinpath(*parts[:-1], parts[-1] + suffix)


def remove(path: Path | StoreFolder) -> None:
    """Remove a file if it exists.

    Raises:
        StorageError: the file exists and cannot be removed.
    """
    if isinstance(path, StoreFolder):
        path.remove()
        return
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{path}: could not be removed: {error.strerror or error}") from error


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _shortened(part: str) -> str:
    content = os.fsencode(part)
    if len(content) <= _LONGEST_PART:
        return part
    return content[: _LONGEST_PART - 20].decode(errors="ignore") + "~" + hashlib.sha256(content).hexdigest()[:16]
