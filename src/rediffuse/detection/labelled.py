"""Find images of known class, in the folders of a data set or in a list, with the group that each came from.

Every folder whose name is in `CLASS_FOLDERS`, in lower or upper case and at any depth, holds images of one class: so
data sets in the layouts of DIRE's DiffusionForensics, CNNDetection and GenImage are read as they are. Beside a folder
of real images without one of generated images, every other folder is a generator, as in DiffusionForensics.
"""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from rediffuse.detection.left_out import NOUNS, Label, LeftOut, by_group, collection_of
from rediffuse.errors import InputError
from rediffuse.images.decode import printable
from rediffuse.images.find import FoundImage, find_images
from rediffuse.images.limits import Limits
from rediffuse.images.lists import listed_files

CLASSES = ("real", "generated")
"""The names of the classes, in the order of the labels 0 and 1."""
CLASS_FOLDERS = (("real", "0_real", "nature"), ("generated", "fake", "1_fake", "ai"))
"""The names of folders of each class."""
LOGGER = logging.getLogger(__name__)
_LABELS = {name: label for label, names in enumerate(CLASS_FOLDERS) for name in names}


@dataclass(frozen=True)
class LabelledImage:
    """A file, its class, and its group."""

    found: FoundImage
    label: int
    """0 real, 1 generated."""
    group: str
    """The source of the image: a generator, or a source of photographs. The folders above and below that of the class,
    such as `clothing/sender12`; where there are none, the class. Groups of two classes are never one group, also if
    their names are equal."""

    @property
    def collection(self) -> str:
        """The first part of `group`."""
        return collection_of(self.group)


@dataclass(frozen=True)
class _ClassFolder:
    """A folder of images of one class."""

    path: Path
    label: int
    above: tuple[str, ...]
    """The names of the folders above it, below that of the data."""
    generator: tuple[str, ...] = ()
    """Its own name, if that is part of the group."""


def find_labelled(data: Path, limits: Limits = Limits()) -> list[LabelledImage]:
    """The images of known class in a folder or in a list.

    Args:
        data: a folder with folders of `CLASS_FOLDERS` at any depth. Folders that are above all of these are no part of
            a group. Or a CSV or Parquet file with the columns file or path (see `lists.listed_files`), label (real or
            0, generated or 1) and, optionally, group.
        limits: those of the files.

    Returns:
        The images; their names are relative to the folder, or those of the list. Of a folder, real images come first.

    Raises:
        InputError: `data` does not exist, there are no images of one of the two classes, a row is wrong, or a group of
            the list, or a folder below those of the classes, has images of both classes.
        StorageError: the list cannot be read.
    """
    if data.is_file():
        return _read_list(data, limits)
    if not data.is_dir():
        raise InputError(f"{printable(data)}: does not exist; a folder, or a CSV or Parquet file, is needed")
    folders = sorted(_class_folders(data, (), frozenset()), key=lambda folder: folder.label)
    for label, names in enumerate(CLASS_FOLDERS):
        if label not in {folder.label for folder in folders}:
            raise InputError(
                f"{printable(data)}: has no folder of {CLASSES[label]} images ({', '.join(names)}) at any depth; "
                "both classes are needed"
            )
    if beside := sorted({name for folder in folders for name in folder.generator}):
        LOGGER.info("%s: folders beside real images are taken as generators: %s", printable(data), ", ".join(beside))
    num_common = len(_common([folder.above for folder in folders]))
    images, inside = [], []
    for folder in folders:
        place = printable(folder.path.relative_to(data).as_posix())
        for found in find_images([folder.path], limits):
            below = folder.generator + PurePosixPath(found.name).parts[:-1]
            group = "/".join(folder.above[num_common:] + below) or CLASSES[folder.label]
            images.append(LabelledImage(replace(found, name=f"{place}/{found.name}"), folder.label, group))
            if below:
                inside.append(images[-1])
    _require_one_class(inside, data)
    return images


def scores_by_class(
    images: Sequence[LabelledImage], scores: Sequence[float]
) -> dict[Label, dict[str, tuple[float, ...]]]:
    """Scores of images by class and group, for every class that occurs."""
    found: dict[Label, dict[str, tuple[float, ...]]] = {}
    for label, name in enumerate(NOUNS):
        rows = [row for row, image in enumerate(images) if image.label == label]
        if rows:
            found[name] = by_group((images[row].group for row in rows), (scores[row] for row in rows))
    return found


def left_out_scores(images: Sequence[LabelledImage], scores: Sequence[float]) -> LeftOut:
    """Scores of images of both classes as left-out scores; see `LeftOut` for the errors."""
    found = scores_by_class(images, scores)
    return LeftOut(real=found.get("real", {}), generated=found.get("generated", {}))


def _class_folders(folder: Path, above: tuple[str, ...], entered: frozenset[str]) -> Iterator[_ClassFolder]:
    """The folders of the classes below `folder`, in the order of their names; no folder is searched in itself."""
    real_path = os.path.realpath(folder)
    if real_path in entered:
        return
    entered |= {real_path}
    inner = [(path, _LABELS.get(path.name.casefold())) for path in _subfolders(folder)]
    has_only_real = {label for _, label in inner if label is not None} == {0}
    for path, label in inner:
        if label is not None:
            yield _ClassFolder(path, label, above)
        elif found := list(_class_folders(path, (*above, path.name), entered)):
            yield from found
        elif has_only_real:
            yield _ClassFolder(path, 1, above, (path.name,))


def _subfolders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    except OSError as error:
        raise InputError(f"{printable(folder)}: cannot be listed: {error.strerror or error}") from None
    return [folder / name for name in sorted(names)]


def _common(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The longest beginning that all paths have in common."""
    first, last = min(paths), max(paths)
    same = [one == other for one, other in zip(first, last, strict=False)]
    return first[: (*same, False).index(False)]


def _read_list(path: Path, limits: Limits) -> list[LabelledImage]:
    images: dict[str, LabelledImage] = {}
    for listed in listed_files(str(path)):
        name, label = listed.name, listed.label
        if name in images:
            raise InputError(f"{listed.place}: {name} occurs twice")
        if label not in (0, 1):
            given = "no label" if label is None else f"the label {label}"
            raise InputError(f"{listed.place}: {name} has {given}; real, 0, generated, 1 are allowed")
        images[name] = LabelledImage(FoundImage(listed.path, name, limits), label, listed.group or CLASSES[label])
    for label, name in enumerate(CLASSES):
        if label not in {image.label for image in images.values()}:
            raise InputError(f"{path}: has no {name} images; both classes are needed")
    _require_one_class(images.values(), path)
    return list(images.values())


def _require_one_class(images: Iterable[LabelledImage], source: Path) -> None:
    labels: dict[str, int] = {}
    for image in images:
        if labels.setdefault(image.group, image.label) != image.label:
            raise InputError(
                f"{printable(source)}: the group {image.group} has images of both classes; one class is allowed"
            )
