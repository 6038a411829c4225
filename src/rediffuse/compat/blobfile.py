"""What programs for guided-diffusion import of blobfile, for files of this machine.

Every function takes a path as text. A path in a cloud (`gs://`, `az://`, `https://`) raises InputError.
"""

import glob as patterns
import os
import shutil
from collections.abc import Callable, Iterator
from functools import wraps
from os.path import basename, dirname, join
from pathlib import Path
from typing import IO, Any, Concatenate, ParamSpec, TypeVar

from rediffuse.errors import InputError

__all__ = [
    "BlobFile",
    "basename",
    "copy",
    "dirname",
    "exists",
    "glob",
    "isdir",
    "join",
    "listdir",
    "makedirs",
    "remove",
    "rmtree",
    "stat",
]

P = ParamSpec("P")
R = TypeVar("R")


def _of_this_machine(function: Callable[Concatenate[str, P], R]) -> Callable[Concatenate[str, P], R]:
    @wraps(function)
    def checked(path: str, *args: P.args, **kwargs: P.kwargs) -> R:
        if "://" in path:
            raise InputError(f"{path}: is not on this machine; install blobfile to read it")
        return function(path, *args, **kwargs)

    return checked


@_of_this_machine
def BlobFile(path: str, mode: str = "r", streaming: bool | None = None, **_: Any) -> IO[Any]:
    """An open file; `streaming` and what else blobfile takes has a meaning for clouds only."""
    return Path(path).open(mode)


@_of_this_machine
def exists(path: str) -> bool:
    return Path(path).exists()


@_of_this_machine
def isdir(path: str) -> bool:
    return Path(path).is_dir()


@_of_this_machine
def listdir(path: str) -> Iterator[str]:
    """Names of what is in a folder, in order."""
    yield from sorted(os.listdir(path))  # noqa: PTH208 (names are asked for)


@_of_this_machine
def glob(path: str) -> Iterator[str]:
    """Paths that a pattern matches, in order."""
    yield from sorted(patterns.glob(path, recursive=True))  # noqa: PTH207 (text in, text out)


@_of_this_machine
def makedirs(path: str) -> None:
    """Make a folder and those above it, where they are not there yet."""
    Path(path).mkdir(parents=True, exist_ok=True)


@_of_this_machine
def remove(path: str) -> None:
    Path(path).unlink()


@_of_this_machine
def rmtree(path: str) -> None:
    shutil.rmtree(path)


@_of_this_machine
def stat(path: str) -> os.stat_result:
    return Path(path).stat()


@_of_this_machine
def copy(path: str, dst: str, overwrite: bool = False) -> None:
    """Copy a file. Raises FileExistsError where there is one already, unless it may be overwritten."""
    if not overwrite and Path(dst).exists():
        raise FileExistsError(f"{dst}: is there already")
    shutil.copyfile(path, dst)
