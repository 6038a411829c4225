"""Image files that are no files of their own on this machine: in an object store, behind a URL, or in a tar file."""

import itertools
import logging
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from rediffuse import stores
from rediffuse.errors import ImageError, InputError, StorageError

LOGGER = logging.getLogger(__name__)

_HEADER_BLOCK = 1 << 16
"""Bytes that are read of a tar file in a store to get the next header: small, since the files are read on their own."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file behind a URL, or a member of a tar file. It holds no bytes and no connection."""

    url: str
    """What fsspec opens; of a member the path or URL of its tar file."""
    member: str | None = None
    """The name of a member in its tar file."""
    begin: int = 0
    """The place of a member in its tar file, in bytes."""
    size: int | None = None
    """The size of a member."""
    problem: str | None = None
    """Why the file cannot be read, if that is known already."""

    def __str__(self) -> str:
        return self.url if self.member is None else f"{self.url}/{self.member}"

    def absolute(self) -> "StoredFile":
        """The same file, independent of the working directory."""
        return self if stores.is_url(self.url) else replace(self, url=str(Path(self.url).absolute()))

    def read(self, max_bytes: int, name: str) -> bytes:
        """All bytes; `name` is for errors.

        Raises:
            ImageError: the file cannot be read, is larger than `max_bytes`, or its tar file was cut off.
        """
        if self.problem is not None:
            raise ImageError(f"{name}: {self.problem}")
        if (self.size or 0) > max_bytes:
            raise ImageError(f"{name}: {self.size} bytes, at most {max_bytes} are read: save it smaller")
        size = max_bytes + 1 if self.size is None else self.size
        try:
            if stores.is_url(self.url):  # in one request
                content = stores.read_bytes(self.url, self.begin, self.begin + size) if size else b""
            else:
                with stores.open_file(self.url) as file:
                    file.seek(self.begin)
                    content = file.read(size)
        except (InputError, StorageError) as error:
            reason = str(error).removeprefix(f"{self.url}: ")
            raise ImageError(f"{name}: cannot be read: {reason}") from error
        if len(content) > max_bytes:
            raise ImageError(f"{name}: more than {max_bytes} bytes, which is the most that is read: save it smaller")
        if self.size is not None and len(content) < self.size:
            raise ImageError(
                f"{name}: has {len(content)} of {self.size} bytes: the tar file was cut off: copy it again"
            )
        return content


@dataclass(frozen=True, slots=True)
class Sample:
    """The members of a tar file that share a stem, which is the name up to the first dot of its last part."""

    files: tuple[StoredFile, ...]
    """In the order of the tar file."""

    @property
    def label(self) -> str:
        """The content of the member `STEM.cls`; empty if there is none.

        Raises:
            ImageError: it cannot be read.
        """
        for file in self.files:
            if _extension(file) == "cls":
                return file.read(100, str(file)).decode(errors="replace").strip()
        return ""


def tar_samples(url: str) -> Iterator[Sample]:
    """The samples of a tar file in WebDataset's layout, in constant memory; only headers are read.

    Args:
        url: the path or URL of a tar file that is not compressed.

    Raises:
        InputError: it is no tar file.
        StorageError: it cannot be read.
    """
    for _, files in itertools.groupby(_members(url), _stem):
        yield Sample(tuple(files))


def _members(url: str) -> Iterator[StoredFile]:
    """The regular files in a tar file."""
    with stores.open_file(url, _HEADER_BLOCK) as file:
        try:
            archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 (holds nothing beside `file`)
            while (member := archive.next()) is not None:
                vars(archive)["members"].clear()  # it would keep all of them
                if member.isreg() and not member.issparse():
                    yield StoredFile(url, member.name, member.offset_data, member.size)
        except tarfile.ReadError as error:
            if "unexpected end of data" not in str(error):
                raise InputError(f"{url}: is not a tar file, or is compressed: decompress it") from None
            return  # the last member is short, and reading it says so
        file.seek(archive.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            LOGGER.warning("%s: has no mark of its end; it may have been cut off or damaged", url)


def _stem(file: StoredFile) -> str:
    path = PurePosixPath(file.member or "")
    return str(path.with_name(path.name.partition(".")[0] or path.name))


def _extension(file: StoredFile) -> str:
    return PurePosixPath(file.member or "").name.partition(".")[2].lower()
