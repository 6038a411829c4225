"""Files that fsspec opens by URL, such as s3://bucket/a.png; errors of all stores are one line."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from rediffuse.errors import InputError, RediffuseError, StorageError, nearest

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_EXTRAS = {"s3": "rediffuse[s3]", "s3a": "rediffuse[s3]", "http": "fsspec[http]", "https": "fsspec[http]"}
"""What to install for a protocol; for others fsspec's own message names the package."""


def is_url(path: object) -> bool:
    """Whether a path is a URL, with a protocol: `s3://bucket/a.png`."""
    return "://" in str(path)


def file_system(url: str) -> "tuple[AbstractFileSystem, str]":
    """The file system of a URL, and the path in it.

    Raises:
        InputError: the protocol is unknown, its package is not installed, or the URL is wrong.
    """
    from fsspec.core import url_to_fs
    from fsspec.registry import available_protocols

    protocol = url.partition("://")[0]
    if protocol not in available_protocols():
        raise InputError(f"{url}: {protocol} is not a protocol of fsspec{nearest(protocol, available_protocols())}")
    try:
        return url_to_fs(url, use_listings_cache=False)  # a cache of a million entries would stay in memory
    except ImportError as error:
        package = _EXTRAS.get(protocol)
        needed = f'pip install "{package}"' if package else one_line(error)
        raise InputError(f"{url}: a package is missing for {protocol}: {needed}") from None
    except Exception as error:  # each store has errors of its own
        raise InputError(f"{url}: cannot be opened: {one_line(error)}") from error


def read_bytes(url: str, begin: int = 0, end: int | None = None) -> bytes:
    """The bytes of a file from `begin` to `end`, or to its end if that comes first, in one request.

    Raises:
        InputError: see `file_system`.
        StorageError: the file does not exist or cannot be read; in one line.
    """
    if end is not None and url.startswith(("http://", "https://")):
        # A web server may ignore the range, and send without end.
        with open_file(url) as file:
            file.seek(begin)
            return file.read(end - begin)
    store, path = file_system(url)
    with described(url, "cannot be read"):
        return cast(bytes, store.cat_file(path, start=begin, end=end))


@dataclass(frozen=True, slots=True)
class StoreFolder:
    """A folder or file in a store, with those methods of `Path` that a folder of results needs; errors as above."""

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> "StoreFolder":
        return self.joinpath(name)

    def joinpath(self, *names: str) -> "StoreFolder":
        return StoreFolder("/".join((self.url.rstrip("/"), *names)))

    def exists(self) -> bool:
        return exists(self.url)

    def read_bytes(self) -> bytes:
        return read_bytes(self.url)

    def write_bytes(self, content: bytes) -> None:
        write_bytes(self.url, content)

    def names(self) -> list[str]:
        """The sorted names of the entries of the folder; none if it does not exist."""
        store, path = file_system(self.url)
        with described(self.url, "cannot be listed"):
            try:
                found = store.ls(path, detail=False)
            except FileNotFoundError:
                return []
        return sorted(str(one).rstrip("/").rpartition("/")[2] for one in found)

    def num_bytes(self) -> int:
        """The size of the file; 0 if it does not exist."""
        store, path = file_system(self.url)
        with described(self.url, "cannot be read"):
            try:
                return store.size(path) or 0
            except FileNotFoundError:
                return 0

    def remove(self) -> None:
        """Remove the file if it exists."""
        store, path = file_system(self.url)
        with described(self.url, "could not be removed"), suppress(FileNotFoundError):
            store.rm_file(path)


def folder_of(path: str) -> "Path | StoreFolder":
    """The folder that a path or URL names."""
    return StoreFolder(path) if is_url(path) else Path(path)


def write_bytes(url: str, content: bytes) -> None:
    """Write a file in one request, so that it is there as a whole or not at all.

    Raises:
        InputError: see `file_system`.
        StorageError: the file cannot be written; in one line.
    """
    store, path = file_system(url)
    with described(url, "could not be written"):
        store.pipe_file(path, content)


def put_file(url: str, file: Path) -> None:
    """Copy a local file to a store, where it is as a whole or not at all; errors as `write_bytes`."""
    store, path = file_system(url)
    with described(url, "could not be written"):
        store.put_file(str(file), path)


def exists(url: str) -> bool:
    """Whether there is a file; errors as `read_bytes`."""
    store, path = file_system(url)
    with described(url, "cannot be read"):
        return store.isfile(path)


@contextmanager
def open_file(path: str, block_size: int | None = None) -> Iterator[BinaryIO]:
    """A local file, or one behind a URL, that is open for reading during the block.

    Args:
        path: the path or URL.
        block_size: bytes that are read together from a store; None for the store's own number.

    Raises:
        InputError: see `file_system`.
        StorageError: the file cannot be opened, or not be read within the block.
    """
    with described(path, "cannot be read"):
        if is_url(path):
            store, inner = file_system(path)
            opened = store.open(inner, "rb", block_size=block_size)
        else:
            opened = Path(path).open("rb")  # noqa: SIM115 (entered below)
        with opened as file:
            yield cast(BinaryIO, file)


@contextmanager
def described(path: str, problem: str) -> Iterator[None]:
    """Turn the errors of the system, and of stores with their own classes, into a StorageError of one line."""
    try:
        yield
    except (RediffuseError, AssertionError):
        raise
    except FileNotFoundError:
        raise StorageError(f"{path}: does not exist") from None
    except Exception as error:
        raise StorageError(f"{path}: {problem}: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """The reason of an error: that of the system, or the first line, or its class if it has no text."""
    text = (getattr(error, "strerror", None) or str(error)).strip().splitlines()
    return text[0] if text else type(error).__name__
