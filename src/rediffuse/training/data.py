"""Folders of labelled images, as batches that are a function of the seed and of the position in the training."""

import csv
import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rediffuse.errors import ImageError, InputError, nearest
from rediffuse.images.crop import center_crop, random_crop
from rediffuse.images.decode import decode
from rediffuse.images.find import find_images
from rediffuse.images.limits import Limits
from rediffuse.images.stored import StoredFile
from rediffuse.images.tensors import to_tensor
from rediffuse.progress import Progress, counted, unobserved
from rediffuse.training.config import ImageConfig
from rediffuse.training.randomness import CROP, ORDER, derive
from rediffuse.training.task import Batch


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Image files and their classes; the files have not been read yet."""

    paths: tuple[Path | StoredFile, ...]
    names: tuple[str, ...]
    """Relative to the folder, with forward slashes."""
    classes: tuple[str, ...]
    """Names of the classes in order (numerical if all of them are numbers); empty without classes."""
    labels: tuple[int, ...]
    """An index into `classes` per file; empty without classes."""

    @property
    def fingerprint(self) -> str:
        """A hash of names and labels."""
        rows = zip(self.names, self.labels or [""] * len(self.names), strict=True)
        return hashlib.sha256("\n".join(f"{name},{label}" for name, label in rows).encode()).hexdigest()[:16]

    def only(self, indices: Sequence[int]) -> "Listing":
        """The files at these indices; the classes and their numbers do not change."""
        return replace(
            self,
            paths=tuple(self.paths[index] for index in indices),
            names=tuple(self.names[index] for index in indices),
            labels=tuple(self.labels[index] for index in indices) if self.labels else (),
        )

    def numbered_as(self, classes: Sequence[str]) -> "Listing":
        """The same files with their classes numbered as in `classes`, so that validation images have the training's.

        Raises:
            InputError: the class of a file is not among them; names the first such file.
        """
        number = {name: index for index, name in enumerate(classes)}
        for place, name in enumerate(self.names):
            label = self.classes[self.labels[place]] if self.labels else None
            if label not in number:
                given = "no class" if label is None else f"class {label!r}{nearest(label, classes)}"
                raise InputError(f"{self.paths[place]}: {name} has {given}; the training has {', '.join(classes)}")
        return replace(self, classes=tuple(classes), labels=tuple(number[self.classes[label]] for label in self.labels))


def list_images(folder: Path, labels: Path | None = None) -> Listing:
    """Find the images below `folder` and their classes: the name of the first subfolder, or the class in `labels`.

    Args:
        folder: the folder, searched recursively.
        labels: a CSV file with the columns `path` (relative to `folder`) and `label`; only files in it are used.

    Raises:
        InputError: there are no images, or the labels file has another form or names missing files.
    """
    found = {image.name: image.path for image in find_images([folder])}
    of_file = _read_labels(labels, found, folder) if labels else _subfolders(list(found))
    names = tuple(sorted(of_file or found))
    classes = tuple(sorted(set(of_file.values()), key=_class_order(of_file.values())))
    index = {label: number for number, label in enumerate(classes)}
    return Listing(
        paths=tuple(found[name] for name in names),
        names=names,
        classes=classes,
        labels=tuple(index[of_file[name]] for name in names) if of_file else (),
    )


class ImageData:
    """Square images by position in the training; see `task.Data`.

    The constructor decodes every file once; files that cannot be decoded are left out and listed in `skipped`. Cropped
    images are kept in memory if all of them fit the limit of the config. With random crops, which differ each time,
    nothing is kept.

    Args:
        listing: the files (see `list_images`).
        config: how they are cropped.
        image_size: side in pixels.
        seed: random seed of order, crops and flips.
        progress: called with the number of files that are read.

    Raises:
        InputError: none of the files can be read.
    """

    def __init__(
        self,
        listing: Listing,
        config: ImageConfig,
        image_size: int,
        seed: int,
        *,
        progress: Progress = unobserved,
    ) -> None:
        self.config, self.image_size, self.seed = config, image_size, seed
        num_bytes = len(listing.paths) * image_size**2 * 3
        caches = not config.random_crop and num_bytes <= config.cache_limit_mb * 2**20
        crops, self.skipped = _read_all(listing.paths, image_size, config.decoding, keep=caches, progress=progress)
        if not crops:
            raise InputError(f"none of the {len(listing.paths)} images can be read; the first: {self.skipped[0]}")
        self.listing = listing.only(list(crops))
        self.fingerprint = self.listing.fingerprint
        self._cache = np.stack(list(crops.values())) if caches else None  # (n, S, S, 3) uint8

    @property
    def classes(self) -> tuple[str, ...]:
        return self.listing.classes

    def __len__(self) -> int:
        return len(self.listing.paths)

    def __getitem__(self, positions: range) -> Batch:
        """x_0 (N, 3, S, S) in [-1, 1] and, if there are classes, y (N,) int64."""
        indices = [self.index_at(position) for position in positions]
        images = [self._image(index, position) for index, position in zip(indices, positions, strict=True)]
        batch = {"x_0": to_tensor(np.stack(images))}
        if self.listing.labels:
            batch["y"] = torch.tensor([self.listing.labels[index] for index in indices])
        return batch

    def index_at(self, position: int) -> int:
        """The index of the file at this position; every epoch is another permutation of all files."""
        epoch, place = divmod(position, len(self))
        return int(_permutation(self.seed, epoch, len(self))[place])

    def _image(self, index: int, position: int) -> np.ndarray:
        rng = np.random.default_rng(derive(self.seed, CROP, position))
        if self._cache is not None:
            pixels = self._cache[index]
        else:
            pixels = decode(self.listing.paths[index], self.config.decoding).pixels
            size = self.image_size
            pixels = random_crop(pixels, size, rng) if self.config.random_crop else center_crop(pixels, size)
        is_mirrored = self.config.random_flip and rng.random() < 0.5
        return pixels[:, ::-1] if is_mirrored else pixels


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    return np.random.default_rng(derive(seed, ORDER, epoch)).permutation(n)


def _read_all(
    paths: Sequence[Path | StoredFile], size: int, limits: Limits, *, keep: bool, progress: Progress
) -> tuple[dict[int, np.ndarray], list[str]]:
    """The centre crop (empty unless it is kept) of every readable file by index; the error messages of the rest."""

    def read(path: Path | StoredFile) -> np.ndarray | ImageError:
        try:
            pixels = decode(path, limits).pixels
        except ImageError as error:
            return error
        return center_crop(pixels, size) if keep else np.empty(0, np.uint8)

    with ThreadPoolExecutor() as pool:
        results = list(counted(pool.map(read, paths), "reading images", len(paths), progress))
    crops = {index: result for index, result in enumerate(results) if isinstance(result, np.ndarray)}
    return crops, [str(result) for result in results if isinstance(result, ImageError)]


def _class_order(names: Iterable[str]) -> Callable[[str], Any]:
    """A sort key: the number if all names are numbers, so that 2 comes before 10; otherwise the name."""
    if all(name.isascii() and name.isdecimal() for name in names):
        return lambda name: (int(name), name)
    return str


def _subfolders(names: Sequence[str]) -> dict[str, str]:
    """The first folder in every name; empty if some images are in no subfolder."""
    of_file = {name: name.split("/")[0] for name in names if "/" in name}
    return of_file if len(of_file) == len(names) else {}


def _read_labels(path: Path, found: Collection[str], folder: Path) -> dict[str, str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheet programs write a byte order mark
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a CSV file: {error}") from None
    if "path" not in columns or "label" not in columns:
        raise InputError(f"{path}: the columns path and label are needed, given {', '.join(columns) or 'nothing'}")
    of_file: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        name, label = row["path"], row["label"]
        if name not in found:
            raise InputError(f"{path}: line {number}: {name!r} is not an image in {folder}")
        if not label:
            raise InputError(f"{path}: line {number}: {name!r} has no label")
        if of_file.setdefault(name, label) != label:
            raise InputError(f"{path}: line {number}: {name!r} has label {label!r}, but {of_file[name]!r} before")
    if not of_file:
        raise InputError(f"{path}: holds no labels")
    return of_file
