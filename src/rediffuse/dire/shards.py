"""Tar files in a folder that hold the results of many images, so that millions of images need few files.

    shards/00000-1a2b3c4d.tar     the files of the results, with the names that they have as single files

The files of one image are added in one piece, whose place is in its row of the manifest. The row is written after the
piece. So bytes at no place belong to a process that was killed, or to an earlier result; `tidy` removes them. The
second part of a shard's name is random: a place must not refer to other results after its shard was lost.
"""

import io
import os
import re
import secrets
import tarfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from rediffuse.errors import InputError, StorageError
from rediffuse.files import remove
from rediffuse.stores import one_line

FOLDER = "shards"
_MOST_BYTES = 1 << 30
"""The largest size of a shard, unless it holds a single image."""
_NAME = re.compile(r"\d{5,}-[0-9a-f]{8}\.tar")
_END = bytes(2 * tarfile.BLOCKSIZE)
"""The mark of the end of a tar file."""


class Place(NamedTuple):
    """Where the files of one image are."""

    shard: str
    """The name of the tar file."""
    begin: int
    """The first byte."""
    end: int
    """The byte after the last."""


class Shards:
    """The shards of a folder. A process adds to shards of its own, from any of its threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER
        self._adding = threading.Lock()
        self._name, self._end = "", 0

    def __reduce__(self) -> tuple[type["Shards"], tuple[Path]]:
        """Pickled for another process, which begins shards of its own."""
        return Shards, (self.folder.parent,)

    def create(self) -> None:
        """Create their folder.

        Raises:
            StorageError: it cannot be created.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{self.folder}: could not be written: {error.strerror or error}") from error

    def add(self, members: Mapping[str, bytes]) -> Place:
        """Add the files of one image, by their names, and return when they are on the disk.

        Raises:
            StorageError: the disk is full, or the folder cannot be written to.
        """
        return self._add(_piece(members))

    def read(self, place: Place) -> dict[str, bytes]:
        """The files of one image, by their names.

        Raises:
            InputError: they are not there as a whole; names the shard.
        """
        with self._opened(place) as file:
            members = list(_members(file, place))
            return {member.name: _read(file, member.offset_data, member.size) for member in members}

    def names(self, place: Place) -> set[str]:
        """The names of the files of one image, which are not read; none if they are not there as a whole."""
        try:
            with self._opened(place) as file:
                return {member.name for member in _members(file, place)}
        except InputError:
            return set()

    def tidy(self, places: Callable[[], Iterable[Place]]) -> dict[Place, Place]:
        """Remove bytes that are at no place, and mark the end of every shard; no process may add to one meanwhile.

        A shard with such bytes before its last place is copied without them; it must stay until the new places are
        recorded.

        Args:
            places: gives all places, in any order; it is called twice.

        Returns:
            The new place of each result that was copied.

        Raises:
            StorageError: a shard cannot be written or removed.
        """
        used, ends = Counter[str](), Counter[str]()
        for place in places():
            used[place.shard] += place.end - place.begin
            ends[place.shard] = max(ends[place.shard], place.end)
        for path in self._paths():
            if not used[path.name]:
                remove(path)
            elif used[path.name] == ends[path.name]:
                _finish(path, ends[path.name])
        moved, copies = {}, Shards(self.folder.parent)
        for place in sorted(place for place in places() if used[place.shard] < ends[place.shard]):
            with suppress(InputError), self._opened(place) as file:  # what was lost from outside stays lost
                moved[place] = copies._add(_read(file, place.begin, place.end - place.begin))
        for path in {self.folder / place.shard for place in moved.values()}:
            _finish(path, path.stat().st_size)
        return moved

    def remove(self, names: Iterable[str]) -> None:
        """Remove shards.

        Raises:
            StorageError: one cannot be removed.
        """
        for name in names:
            remove(self.folder / name)

    def _add(self, piece: bytes) -> Place:
        with self._adding:
            try:
                if not self._is_own() or self._end + len(piece) > _MOST_BYTES:
                    self._begin()
                _write(self.folder / self._name, self._end, piece)
            except OSError as error:
                path = self.folder / self._name
                raise StorageError(f"{path}: could not be written: {error.strerror or error}") from error
            begin, self._end = self._end, self._end + len(piece)
            return Place(self._name, begin, self._end)

    def _is_own(self) -> bool:
        """Whether the shard is as this process left it: the end of another process may have finished it."""
        path = self.folder / self._name
        return path.is_file() and path.stat().st_size == self._end

    def _begin(self) -> None:
        """Begin a shard with a name that no other one has or had."""
        number = max((int(path.name.partition("-")[0]) for path in self._paths()), default=-1) + 1
        self._name, self._end = f"{number:05}-{secrets.token_hex(4)}.tar", 0
        (self.folder / self._name).touch(exist_ok=False)

    def _paths(self) -> list[Path]:
        """The shards; files of other names are left alone."""
        return sorted(path for path in self.folder.glob("*.tar") if _NAME.fullmatch(path.name))

    @contextmanager
    def _opened(self, place: Place) -> Iterator[BinaryIO]:
        path = self.folder / place.shard
        try:
            with path.open("rb") as file:
                if file.seek(0, os.SEEK_END) < place.end:
                    raise InputError(f"{path}: was cut off before byte {place.end}")
                yield file
        except (OSError, tarfile.TarError) as error:
            raise InputError(f"{path}: cannot be read at byte {place.begin}: {one_line(error)}") from error


def _piece(members: Mapping[str, bytes]) -> bytes:
    """A part of a tar file, which depends on nothing but the files."""
    with io.BytesIO() as piece, tarfile.open(fileobj=piece, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
        return piece.getvalue()


def _members(file: BinaryIO, place: Place) -> Iterator[tarfile.TarInfo]:
    file.seek(place.begin)
    archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 (holds nothing beside `file`)
    member = archive.next()
    while member is not None:
        yield member
        member = archive.next() if archive.offset < place.end else None
    if archive.offset != place.end:
        raise tarfile.ReadError("the files of an image are not there as a whole")


def _read(file: BinaryIO, begin: int, size: int) -> bytes:
    file.seek(begin)
    return file.read(size)


def _write(path: Path, begin: int, content: bytes) -> None:
    """Write at a place through to the disk; after an error the file ends there."""
    with path.open("r+b", buffering=0) as file:
        try:
            file.seek(begin)
            left = memoryview(content)
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(begin)
            raise


def _finish(path: Path, end: int) -> None:
    """Write the mark of the end of a shard, and remove what follows; not of one that was cut off before."""
    try:
        with path.open("rb") as file:
            if file.seek(0, os.SEEK_END) < end or _read(file, end, len(_END) + 1) == _END:
                return
        os.truncate(path, end)
        _write(path, end, _END)
    except OSError as error:
        raise StorageError(f"{path}: could not be written: {error.strerror or error}") from error
