"""List the images in files, folders, glob patterns, lists, tar files, stores and memory, each with a unique name.

Whatever their number is, the memory is constant, but for the entries of one folder in a store.
"""

import contextlib
import glob
import hashlib
import itertools
import logging
import os
import sqlite3
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from rediffuse import stores
from rediffuse.errors import ImageError, InputError, StorageError, nearest
from rediffuse.images import lists
from rediffuse.images.decode import printable, read_file
from rediffuse.images.limits import Limits
from rediffuse.images.names import Names, safe_name, safe_part
from rediffuse.images.stored import StoredFile, tar_samples

LOGGER = logging.getLogger(__name__)

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif"),
    *(".jp2", ".j2k", ".heic", ".heif"),
)
"""Suffixes of the files that are taken from folders, in lower or upper case. A file given by path may have any."""


TAR = ".tar"
_SORTED_IN_MEMORY = 50_000
"""Entries of one folder; more are sorted on the disk."""


@dataclass(frozen=True, slots=True)
class FoundImage:
    """One file to read and the name of its results."""

    path: Path | StoredFile
    name: str
    """A relative path with forward slashes and without `..`; unique within one call, also if case is ignored. It keeps
    the file's suffix, since a folder may hold `a.jpg` and `a.png`; results append theirs: `a.jpg.png`."""
    limits: Limits = Limits()
    """What the file may be, and take, to be decoded."""
    label: int | None = None
    """Its class, for a class-conditional model."""
    shown_as: str | None = None
    """Its name in messages, where that is not its path: of an uploaded file the name that its sender gave."""

    @property
    def source(self) -> str:
        """The image's name in messages: its path, in one line."""
        return printable(self.path if self.shown_as is None else Path(self.shown_as))

    @property
    def place(self) -> str:
        """What is the same for the same file: its real path, or its URL."""
        return str(self.path) if isinstance(self.path, StoredFile) else os.path.realpath(self.path)

    def read(self) -> bytes:
        """The bytes of the file; see `decode.read_file` for the errors."""
        return read_file(self.path, self.limits)

    def sha256(self) -> str | None:
        """SHA-256 of the file's bytes, in hex; None if it cannot be read."""
        try:
            return hashlib.sha256(self.read()).hexdigest()
        except ImageError:
            return None

    def absolute(self) -> "FoundImage":
        """The same image, whose path does not depend on the working directory."""
        return replace(self, path=self.path.absolute())


@dataclass(frozen=True)
class MemoryImage:
    """One image in memory and the name of its results."""

    image: Image.Image | np.ndarray
    """An argument of `decode.pixels_of`, not yet checked."""
    name: str
    label: int | None = None
    """As `FoundImage.label`."""

    @property
    def source(self) -> str:
        """The image's name in messages."""
        return self.name


ImageLike = Path | str | Image.Image | np.ndarray
"""An image: its path, a Pillow image, or an array, uint8 (H, W, 3)."""


def gather_images(images: ImageLike | Sequence[ImageLike], limits: Limits = Limits()) -> list[FoundImage | MemoryImage]:
    """List files, as `find_images` does, and images in memory, in the order in which they are given.

    Args:
        images: one or several. A path is an argument of `each_image`. The name of an image in memory is its position
            in `images`, counted from 0: `image 0`. An array of four dimensions is a sequence of images.
        limits: those of the files.

    Raises:
        InputError: as `each_image`, or an item is not an image.
    """
    names = Names()
    found: list[FoundImage | MemoryImage] = []
    for place, given in enumerate(as_list(images)):
        if isinstance(given, Path | str):
            for source in _sources(str(given)):
                found += _named(source(), names, limits)
        elif not isinstance(given, Image.Image | np.ndarray):
            kind = type(given).__name__
            raise InputError(f"image {place}: is a {kind}; a path, a Pillow image or a uint8 array (H, W, 3) is needed")
        else:
            found.append(MemoryImage(given, names.choose(PurePosixPath(f"image {place}"), "memory")))
    if not found:
        raise InputError(_NOTHING)
    LOGGER.debug("found %d images", len(found))
    return found


def find_images(paths: Sequence[Path | str], limits: Limits = Limits()) -> list[FoundImage]:
    """The images of `each_image` as a list."""
    return list(each_image(paths, limits))


def each_image(paths: Iterable[Path | str], limits: Limits = Limits()) -> Iterator[FoundImage]:
    """The image files under `paths` one after the other, each once, in the same order in every call.

    Args:
        paths: each of them is a path or a URL that fsspec opens (`s3://`, `hf://`, `https://`, `memory://`), of

            - a file of any suffix;
            - a folder, which is searched recursively in the order of names: links are followed, hidden entries are
              skipped, and only files of `SUFFIXES` are taken;
            - a glob pattern that the shell did not expand (`**` too);
            - a list (.csv, .parquet) of files: see `lists.listed_files`;
            - a tar file with images; members whose names are equal up to the first dot are one sample, whose `.cls`
              member is its label. A tar file that cannot be read is yielded, for decoding to report.

            If `paths` is no sequence, it is read as the images are, and a path that does not exist is yielded, for
            decoding to report; in a sequence it is an error at once.
        limits: those of the files.

    Yields:
        Files with names: the file's own name, or its path below the given folder or in the list or tar file. If an
        earlier file has the name, the folder's name is put in front; if that is not enough, a number before the suffix.

    Raises:
        InputError: nothing was given, a path does not exist or cannot be listed, a pattern matches nothing, a
            folder holds no images, or a list is wrong. If `paths` is a sequence, before the first image, as far as the
            first image of each path shows it.
        StorageError: a store cannot be read.
    """
    names = Names()
    if isinstance(paths, Sequence):
        sources: Iterable[_Source] = [source for given in paths for source in _sources(str(given))]
    else:
        sources = (source for given in paths for source in _sources(str(given), may_miss=True))
    number = 0
    for source in sources:
        for image in _named(source(), names, limits):
            number += 1
            yield image
    if not number:
        raise InputError(_NOTHING)
    LOGGER.debug("found %d images", number)


def counted_up_to(most: int, files: Iterable[FoundImage]) -> tuple[Iterator[FoundImage], int]:
    """The files, and their number, or `most` if there are more; as many are held in memory."""
    files = iter(files)
    first = list(itertools.islice(files, most))
    return itertools.chain(first, files), len(first)


def as_list(images: ImageLike | Sequence[ImageLike]) -> list[ImageLike]:
    """One image or several as a list; an array of four dimensions is several."""
    if isinstance(images, Path | str | Image.Image) or (isinstance(images, np.ndarray) and images.ndim != 4):
        return [images]
    return list(images)


_NOTHING = "no files: give at least one image, folder or pattern"


@dataclass(frozen=True, slots=True)
class _File:
    """A file that was found, before it has a name."""

    path: Path | StoredFile
    place: str
    """What is the same for the same file: its real path, or its URL."""
    name: PurePosixPath
    """Its path below the source."""
    folder: str
    """The name of the source."""
    label: int | None = None


_Source = Callable[[], Iterator[_File]]


def _named(files: Iterable[_File], names: Names, limits: Limits) -> Iterator[FoundImage]:
    for file in files:
        if names.is_new(file.place):
            yield FoundImage(file.path, names.choose(file.name, file.folder), limits, file.label)


def _sources(given: str, *, may_miss: bool = False) -> Iterator[_Source]:
    """The sources that a path, pattern or URL stands for; each gives its files when it is called.

    Errors are raised now, as far as the first file shows them. Only tar files are not opened, which may be many.
    """
    paths = _matches_in_store(given) if stores.is_url(given) else _matches(given, may_miss)
    for path in paths:
        if not stores.is_url(path) and Path(path).is_dir():
            yield _begun(_in_folder(Path(path)))
        elif path.lower().endswith(TAR):
            yield lambda path=path: _in_tar(path)
        elif lists.is_list(path):
            with contextlib.closing(_listed(path)) as listed:
                next(listed, None)
            yield lambda path=path: _listed(path)
        elif stores.is_url(path):
            yield _begun(_in_store(path))
        else:
            yield lambda path=Path(path): iter([_single(path)])


def _begun(files: Iterator[_File]) -> _Source:
    first = list(itertools.islice(files, 1))
    return lambda: itertools.chain(first, files)


def _matches(given: str, may_miss: bool) -> list[str]:
    path = Path(given)
    try:
        path.lstat()
        return [given]
    except (FileNotFoundError, NotADirectoryError):
        pass  # perhaps a pattern
    except OSError as error:
        raise InputError(f"{printable(path)}: cannot be read: {error.strerror or error}") from error
    if glob.has_magic(given):
        matches = sorted(glob.glob(given, recursive=True))  # noqa: PTH207 (Path.glob wants a root)
        if not matches:
            raise InputError(f"{printable(path)}: the pattern matches nothing")
        return matches
    if may_miss:
        return [given]
    raise InputError(f"{printable(path)}: does not exist{_hint(path)}")


def _matches_in_store(given: str) -> list[str]:
    if not glob.has_magic(given) or given.startswith(("http://", "https://")):  # where ? has another meaning
        return [given]
    store, pattern = stores.file_system(given)
    with stores.described(given, "cannot be listed"):
        found = [str(path) for path in store.glob(pattern)]
        visible = (path for path in found if not path.rstrip("/").rpartition("/")[2].startswith("."))  # as on the disk
        matches = sorted(map(store.unstrip_protocol, visible))
    if not matches:
        raise InputError(f"{printable(given)}: the pattern matches nothing")
    return matches


def _single(path: Path) -> _File:
    folder = safe_part(path.resolve().parent.name) or "root"
    return _File(path, os.path.realpath(path), safe_name(path.name), folder)


def _in_folder(root: Path) -> Iterator[_File]:
    folder = safe_part(root.resolve().name) or "root"
    files = (_File(path, real, safe_name(str(path.relative_to(root))), folder) for real, path in _walk(root))
    yield from _some(files, str(root))


def _in_store(url: str) -> Iterator[_File]:
    """A file behind a URL, or the images below it."""
    store, top = stores.file_system(url)
    with stores.described(url, "cannot be read"):
        kind = store.info(top)["type"]
    folder = safe_part(top.rstrip("/").rpartition("/")[2]) or "root"
    if kind != "directory":
        yield _File(StoredFile(url), url, safe_name(folder), safe_name(top).parent.name or "root")
        return

    def files(path: str) -> Iterator[_File]:
        with stores.described(url, "cannot be listed"):
            entries = sorted((entry["name"], entry["type"]) for entry in store.ls(path, detail=True))
        for name, kind in entries:
            last = name.rstrip("/").rpartition("/")[2]
            if last.startswith(".") or name.rstrip("/") == path.rstrip("/"):  # a mark of S3 for an empty folder
                continue
            if kind == "directory":
                yield from files(name)
            elif last.lower().endswith(SUFFIXES):
                below = name.removeprefix(top.rstrip("/"))
                full = store.unstrip_protocol(name)
                yield _File(StoredFile(full), full, safe_name(below), folder)

    yield from _some(files(top), url)


def _listed(path: str) -> Generator[_File, None, None]:
    folder = safe_name(path).stem
    for listed in lists.listed_files(path):
        place = FoundImage(listed.path, listed.name).place
        yield _File(listed.path, place, PurePosixPath(listed.name), folder, listed.label)


def _in_tar(path: str) -> Iterator[_File]:
    """The images in a tar file; if it cannot be read, one file with this reason, so that others go on."""
    place = path if stores.is_url(path) else os.path.realpath(path)
    folder = safe_name(path).stem

    def files() -> Iterator[_File]:
        for sample in tar_samples(path):
            images = [file for file in sample.files if _is_image(PurePosixPath(file.member or ""))]
            label = lists.label_of(sample.label, f"{path}: the label of {images[0].member}") if images else None
            for file in images:
                yield _File(file, f"{place}/{file.begin}", safe_name(file.member or ""), folder, label)

    try:
        yield from _some(files(), path)
    except (ImageError, InputError, StorageError) as error:
        problem = str(error).removeprefix(f"{path}: ")
        yield _File(StoredFile(path, problem=problem), place, safe_name(safe_name(path).name), "tar")


def _is_image(path: PurePosixPath) -> bool:
    return path.suffix.lower() in SUFFIXES and not any(part.startswith(".") and part != "." for part in path.parts)


def _some(files: Iterator[_File], source: str) -> Iterator[_File]:
    """The files; an error if there are none."""
    first = next(files, None)
    if first is None:
        raise InputError(f"{printable(source)}: holds no images ({', '.join(SUFFIXES)})")
    yield first
    yield from files


def _hint(path: Path) -> str:
    """A hint `; did you mean X?` with an existing entry similar to the first part of `path` that does not exist."""
    while not path.parent.exists():
        path = path.parent
    try:
        siblings = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return ""
    return printable(nearest(path.name, siblings))


def _walk(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield the real path and the path of every image below `root`, sorted; no link to a folder is followed twice."""
    followed: set[str] = set()
    inside = [(os.path.realpath(root), root, _entries(root))]  # the folders on the way to the present one
    while inside:
        real, folder, entries = inside[-1]
        entry = next(entries, None)
        if entry is None:
            inside.pop()
            continue
        name, kind = entry
        path = folder / name
        if kind == _LINK and path.is_dir():
            target = os.path.realpath(path)
            if target not in followed and target not in (above for above, _, _ in inside):
                followed.add(target)
                inside.append((target, path, _entries(path)))
        elif kind == _FOLDER:
            inside.append((f"{real}/{name}", path, _entries(path)))
        elif path.suffix.lower() in SUFFIXES:  # also a broken link: decoding reports it
            yield os.path.realpath(path) if kind == _LINK else f"{real}/{name}", path


_FILE, _FOLDER, _LINK = range(3)


def _entries(folder: Path) -> Iterator[tuple[str, int]]:
    """The names and kinds of the entries of a folder that are not hidden, sorted by name."""
    try:
        with os.scandir(folder) as entries:
            named = (
                (os.fsencode(entry.name), _LINK if entry.is_symlink() else _FOLDER if entry.is_dir() else _FILE)
                for entry in entries
                if not entry.name.startswith(".")
            )
            few = list(itertools.islice(named, _SORTED_IN_MEMORY))
            if len(few) < _SORTED_IN_MEMORY:
                found: Iterable[tuple[bytes, int]] = sorted(few)
            else:
                on_disk = sqlite3.connect("")
                on_disk.execute("CREATE TABLE entries (name BLOB, kind INTEGER)")
                on_disk.executemany("INSERT INTO entries VALUES (?, ?)", itertools.chain(few, named))
                found = on_disk.execute("SELECT name, kind FROM entries ORDER BY name")
            del few
    except OSError as error:
        raise InputError(f"{printable(folder)}: cannot be listed: {error.strerror or error}") from error
    return ((os.fsdecode(name), kind) for name, kind in found)
