"""The functions of blobfile that programs for guided-diffusion use, for local files only.

Every function takes a path as a string. A remote path (`gs://`, `az://`, `https://`) raises InputError.
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


def _local(function: Callable[Concatenate[str, P], R]) -> Callable[Concatenate[str, P], R]:
    @wraps(function)
    def checked(path: str, *args: P.args, **kwargs: P.kwargs) -> R:
        if "://" in path:
            raise InputError(f"{path}: is not on this machine; install blobfile to read it")
        return function(path, *args, **kwargs)

    return checked


@_local
def BlobFile(path: str, mode: str = "r", streaming: bool | None = None, **_: Any) -> IO[Any]:
    """An open file; `streaming` and blobfile's other arguments have an effect on remote files only.

    Raises InputError for an empty path, which is the default of programs' flags for files.
    """
    if not path:
        raise InputError("the program opens a file whose path is empty: give its flag, such as --base_samples")
    return Path(path).open(mode)


@_local
def exists(path: str) -> bool:
    return Path(path).exists()


@_local
def isdir(path: str) -> bool:
    return Path(path).is_dir()


@_local
def listdir(path: str) -> Iterator[str]:
    """The names of the entries of a folder, sorted."""
    yield from sorted(os.listdir(path))  # noqa: PTH208 (names are needed)


@_local
def glob(path: str) -> Iterator[str]:
    """The paths that match a pattern, sorted."""
    yield from sorted(patterns.glob(path, recursive=True))  # noqa: PTH207 (text in, text out)


@_local
def makedirs(path: str) -> None:
    """Make a folder and its parents, if they do not exist."""
    Path(path).mkdir(parents=True, exist_ok=True)


@_local
def remove(path: str) -> None:
    Path(path).unlink()


@_local
def rmtree(path: str) -> None:
    shutil.rmtree(path)


@_local
def stat(path: str) -> os.stat_result:
    return Path(path).stat()


@_local
def copy(path: str, dst: str, overwrite: bool = False) -> None:
    """Copy a file. Raises FileExistsError if `dst` exists and `overwrite` is not set."""
    if not overwrite and Path(dst).exists():
        raise FileExistsError(f"{dst}: exists already")
    shutil.copyfile(path, dst)
