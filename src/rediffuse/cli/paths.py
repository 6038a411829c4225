"""PATHS of a command: from the call, and from standard input where `-` stands among them."""

import os
import sys
from collections.abc import Sequence

from rediffuse.errors import InputError


def expand_stdin(paths: Sequence[str]) -> list[str]:
    """The paths, with those that standard input names in the place of `-`.

    Input is one path a line, or separated by NUL as `find -print0` writes them. A file called `-` is given as `./-`.

    Raises:
        InputError: standard input is empty, or asked for twice.
    """
    if list(paths).count("-") > 1:
        raise InputError("-: standard input can be read only once; give one -")
    return [path for given in paths for path in (_read_stdin() if given == "-" else [given])]


def _read_stdin() -> list[str]:
    text = sys.stdin.buffer.read()
    separated = text.split(b"\0") if b"\0" in text else [line.removesuffix(b"\r") for line in text.split(b"\n")]
    paths = [os.fsdecode(path) for path in separated if path]
    if not paths:
        raise InputError("-: standard input is empty; one path a line is needed")
    return paths
