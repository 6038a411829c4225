"""The PATHS of a command: from its arguments, and from standard input if one of them is `-`."""

import os
import sys
from collections.abc import Sequence

from rediffuse.errors import InputError


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


def _read_stdin() -> list[str]:
    text = sys.stdin.buffer.read()
    separated = text.split(b"\0") if b"\0" in text else [line.removesuffix(b"\r") for line in text.split(b"\n")]
    paths = [os.fsdecode(path) for path in separated if path]
    if not paths:
        raise InputError("-: standard input is empty; one path per line is needed")
    return paths
