"""The paths of a command: those to read, also from standard input, and those to write."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rediffuse.errors import ConfigError, InputError


def expand_stdin(paths: Sequence[str]) -> list[str]:
    """Replace `-` by the paths from standard input.

    Standard input has one path per line, or paths separated by NUL as from `find -print0`. A file with the name `-` is
    given as `./-`.

    Raises:
        InputError: standard input is empty, or `-` is given twice.
    """
    if list(paths).count("-") > 1:
        raise InputError("-: standard input can be read only once; give one -")
    return [path for given in paths for path in (_read_stdin() if given == "-" else [given])]


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


def check_free(flag: str, given: Path, result: Path, force: bool) -> None:
    """Raise InputError where a result exists already and must not be replaced, or its folder cannot be written to."""
    if result.exists() and not force:
        raise InputError(f"{flag} {given}: {result.name} exists already; --force replaces it")
    above = next(folder for folder in result.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise InputError(f"{flag} {given}: {above} is not a folder that can be written to")


def _read_stdin() -> list[str]:
    text = sys.stdin.buffer.read()
    separated = text.split(b"\0") if b"\0" in text else [line.removesuffix(b"\r") for line in text.split(b"\n")]
    paths = [os.fsdecode(path) for path in separated if path]
    if not paths:
        raise InputError("-: standard input is empty; one path per line is needed")
    return paths
