"""List the images in files, folders, glob patterns and memory, each with a unique name for its results."""

import glob
import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from rediffuse.errors import InputError, nearest
from rediffuse.images.decode import printable
from rediffuse.images.limits import Limits

LOGGER = logging.getLogger(__name__)

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif"),
    *(".jp2", ".j2k", ".heic", ".heif"),
)
"""Suffixes of the files that are taken from folders, in lower or upper case. A file given by path may have any."""


@dataclass(frozen=True)
class FoundImage:
    """One file to read and the name of its results."""

    path: Path
    name: str
    """A relative path with forward slashes and without `..`; unique within one call, also if case is ignored. It keeps
    the file's suffix, since a folder may hold `a.jpg` and `a.png`; results append theirs: `a.jpg.png`."""
    limits: Limits = Limits()
    """What the file may be, and take, to be decoded."""

    @property
    def source(self) -> str:
        """The image's name in messages: its path, in one line."""
        return printable(self.path)


@dataclass(frozen=True)
class MemoryImage:
    """One image in memory and the name of its results."""

    image: Image.Image | np.ndarray
    """An argument of `decode.pixels_of`, not yet checked."""
    name: str

    @property
    def source(self) -> str:
        """The image's name in messages."""
        return self.name


ImageLike = Path | str | Image.Image | np.ndarray
"""An image: its path, a Pillow image, or an array, uint8 (H, W, 3)."""


def gather_images(images: ImageLike | Sequence[ImageLike], limits: Limits = Limits()) -> list[FoundImage | MemoryImage]:
    """List files, as `find_images` does, and images in memory, in the order in which they are given.

    Args:
        images: one or several. A path is a file, a folder or a pattern. The name of an image in memory is its position
            in `images`, counted from 0: `image 0`. An array of four dimensions is a sequence of images.
        limits: those of the files.

    Raises:
        InputError: as `find_images`, or an item is not an image.
    """
    found: dict[str, tuple[Path | MemoryImage, PurePosixPath, str]] = {}  # files by their real path
    for place, given in enumerate(as_list(images)):
        if isinstance(given, Path | str):
            for path in _expand(given):
                for real, named in _named_files(path):
                    found.setdefault(real, named)
        elif not isinstance(given, Image.Image | np.ndarray):
            kind = type(given).__name__
            raise InputError(f"image {place}: is a {kind}; a path, a Pillow image or a uint8 array (H, W, 3) is needed")
        else:
            name = f"image {place}"
            found[f"\0{place}"] = (MemoryImage(given, name), PurePosixPath(name), "memory")
    if not found:
        raise InputError("no files: give at least one image, folder or pattern")
    LOGGER.debug("found %d images", len(found))
    names = _unique([(name, folder) for _, name, folder in found.values()])
    return [
        FoundImage(image, name, limits) if isinstance(image, Path) else replace(image, name=name)
        for (image, _, _), name in zip(found.values(), names, strict=True)
    ]


def find_images(paths: Sequence[Path | str], limits: Limits = Limits()) -> list[FoundImage]:
    """List the image files under `paths`, each file once, folders in the order of their names.

    Args:
        paths: files (of any suffix), folders (searched recursively, links followed, hidden entries skipped, `SUFFIXES`
            only) and glob patterns that the shell did not expand (`**` too).
        limits: those of the files.

    Returns:
        Files with names: the file's own name, or its path below the given folder. If two names are equal, both get the
        name of their folder in front; if that is not enough, one gets a number before the suffix.

    Raises:
        InputError: nothing was given, a path does not exist or cannot be listed, a pattern matches nothing, a
            folder holds no images.
    """
    return [image for image in gather_images(paths, limits) if isinstance(image, FoundImage)]


def as_list(images: ImageLike | Sequence[ImageLike]) -> list[ImageLike]:
    """One image or several as a list; an array of four dimensions is several."""
    if isinstance(images, Path | str | Image.Image) or (isinstance(images, np.ndarray) and images.ndim != 4):
        return [images]
    return list(images)


def _named_files(path: Path) -> Iterator[tuple[str, tuple[Path, PurePosixPath, str]]]:
    """The real path of every image file that `path` is or holds, with its path, its name and that of its folder."""
    if path.is_dir():
        folder = _safe(path.resolve().name) or "root"
        for real, file in _walk(path):
            yield real, (file, _safe_name(file.relative_to(path)), folder)
    else:
        folder = _safe(path.resolve().parent.name) or "root"
        yield os.path.realpath(path), (path, PurePosixPath(_safe(path.name)), folder)


def _expand(given: Path | str) -> list[Path]:
    path = Path(given)
    try:
        path.lstat()
        return [path]
    except (FileNotFoundError, NotADirectoryError):
        pass  # perhaps a pattern
    except OSError as error:
        raise InputError(f"{printable(path)}: cannot be read: {error.strerror or error}") from error
    if glob.has_magic(str(given)):
        matches = sorted(glob.glob(str(given), recursive=True))  # noqa: PTH207 (Path.glob wants a root)
        if not matches:
            raise InputError(f"{printable(path)}: the pattern matches nothing")
        return [Path(match) for match in matches]
    raise InputError(f"{printable(path)}: does not exist{_hint(path)}")


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
    """Yield the real path and the path of every image below `root`, sorted; no folder is entered twice."""
    entered = set()
    files = []
    folders = [root]
    while folders:
        folder = folders.pop()
        real = os.path.realpath(folder)
        if real in entered:  # reached before through a link
            continue
        entered.add(real)
        for entry in _entries(folder):
            if entry.name.startswith("."):
                continue
            path = folder / entry.name
            if path.is_dir():
                folders.append(path)
            elif path.suffix.lower() in SUFFIXES:  # also a broken link: decoding reports it
                files.append((os.path.realpath(path) if entry.is_symlink() else f"{real}/{entry.name}", path))
    if not files:
        raise InputError(f"{printable(root)}: holds no images ({', '.join(SUFFIXES)})")
    yield from sorted(files, key=lambda file: file[1])


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{printable(folder)}: cannot be listed: {error.strerror or error}") from error


def _safe(part: str) -> str:
    """One part of a path as valid Unicode without control characters, which tables and other systems can store."""
    return re.sub(r"[\x00-\x1f\x7f\\:]", "_", part.encode("utf-8", "replace").decode())


def _safe_name(relative: Path) -> PurePosixPath:
    return PurePosixPath(*map(_safe, relative.parts))


def _unique(named: Sequence[tuple[PurePosixPath, str]]) -> list[str]:
    """Turn (name, folder) into unique names; those that are already unique do not change."""
    count = Counter(str(name).casefold() for name, _ in named)
    alone = [count[str(name).casefold()] == 1 for name, _ in named]
    taken = {str(name).casefold() for (name, _), single in zip(named, alone, strict=True) if single}
    names = []
    for (name, folder), single in zip(named, alone, strict=True):
        names.append(str(name) if single else _first_free(folder / name, taken))
        taken.add(names[-1].casefold())
    return names


def _first_free(name: PurePosixPath, taken: set[str]) -> str:
    free, number = name, 1
    while str(free).casefold() in taken:
        number += 1
        free = name.with_name(f"{name.stem}-{number}{name.suffix}")
    return str(free)
