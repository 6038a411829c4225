"""The paths of a command: those to read, also from standard input, and those to write."""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rediffuse import stores
from rediffuse.errors import ConfigError, InputError
from rediffuse.models.config import BatchSize, check_batch_size

COUNTED = 10_000
"""Files that are counted before the work, so that the progress bar shows the remaining time."""
_LONGEST_PATH = 1 << 16
"""Bytes of standard input that are read together; a path is shorter."""


def most_to_count(batch_size: BatchSize) -> int:
    """The number of images from which on their number does not change the size of the batches; see `images.even`.

    Raises:
        ConfigError: the size is below 1.
    """
    check_batch_size(batch_size)
    return COUNTED if batch_size == "auto" else max(COUNTED, batch_size**2)


def expand_stdin(paths: Sequence[str]) -> Iterable[str]:
    """The paths, or an iterator of them in which `-` is replaced by the paths from standard input as they are read.

    Standard input has one path per line, or paths separated by NUL as from `find -print0`. A file with the name `-` is
    given as `./-`.

    Raises:
        InputError: `-` is given twice; or, from the iterator, standard input is empty.
    """
    if "-" not in paths:
        return paths
    if list(paths).count("-") > 1:
        raise InputError("-: standard input can be read only once; give one -")
    return (path for given in paths for path in (_read_stdin() if given == "-" else [given]))


def check_figure(path: Path | None, force: bool) -> None:
    """Raise the errors of `--figure` that can be found before the work; None is no figure."""
    if path is None:
        return
    from rediffuse.report.curves import FORMATS

    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"--figure {path}: a name that ends in one of {', '.join(FORMATS)} is needed")
    if path.is_dir():
        raise InputError(f"--figure {path}: is a folder; give a file in it")
    if path.exists() and not force:
        raise InputError(f"--figure {path}: exists already; --force replaces it")


def check_report(path: Path | None, force: bool) -> None:
    """Raise the errors of `--report` that can be found before the work; None is no report."""
    if path is None:
        return
    if path.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--report {path}: a name that ends in .html is needed")
    if path.is_dir():
        raise InputError(f"--report {path}: is a folder; give a file in it")
    check_free("--report", path, path, force)


def check_free_file(flag: str, given: str, force: bool) -> None:
    """Raise InputError where a file, local or behind a URL, cannot be written or must not be replaced."""
    if not stores.is_url(given):
        if Path(given).is_dir():
            raise InputError(f"{flag} {given}: is a folder; give a file in it")
        check_free(flag, Path(given), Path(given), force)
    elif stores.exists(given) and not force:
        raise InputError(f"{flag} {given}: exists already; --force replaces it")


def check_free(flag: str, given: Path, result: Path, force: bool) -> None:
    """Raise InputError where a result exists already and must not be replaced, or its folder cannot be written to."""
    if result.exists() and not force:
        raise InputError(f"{flag} {given}: {result.name} exists already; --force replaces it")
    above = next(folder for folder in result.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise InputError(f"{flag} {given}: {above} is not a folder that can be written to")


def _read_stdin() -> Iterator[str]:
    begin = sys.stdin.buffer.read(_LONGEST_PATH)
    end, rest, is_empty = b"\0" if b"\0" in begin else b"\n", b"", True
    while begin:
        *paths, rest = (rest + begin).split(end)
        for path in _given(paths, end):
            is_empty = False
            yield path
        begin = sys.stdin.buffer.read(_LONGEST_PATH)
    for path in _given([rest], end):
        is_empty = False
        yield path
    if is_empty:
        raise InputError("-: standard input is empty; one path per line is needed")


def _given(paths: Sequence[bytes], end: bytes) -> Iterator[str]:
    for path in paths:
        if name := path.removesuffix(b"\r") if end == b"\n" else path:
            yield os.fsdecode(name)
