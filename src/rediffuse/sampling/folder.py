"""A folder of images that a model made, with their settings.

settings.json           the settings of all images, except seed and class
batch_size.json         images per call of the network, for a job that continues (`zoo.batch_size`)
images/NAME.png         the images
small/NAME.png          the images from which they were enlarged, for super-resolution
progressive/NAME.png    the intermediate steps of each image (or NAME.gif), with --progressive
grid.png                the images of the last call in one picture, with --grid
"""

import filecmp
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, get_args

import numpy as np

from rediffuse.errors import InputError, SettingsMismatch
from rediffuse.files import atomic_write, claim, remove, result_path, write_bytes
from rediffuse.images.decode import Limits, decode
from rediffuse.images.encode import gif_bytes, is_whole, png_bytes
from rediffuse.images.montage import tile
from rediffuse.images.npz import write_npz
from rediffuse.models.config import Precision
from rediffuse.records import added_defaults, dump, read_json
from rediffuse.sampling.config import Progressive, SampleRecord, SamplingSettings, UpscaleRecord

MAX_IN_GRID = 1024
"""Largest number of images in a grid; the first ones are shown."""

SETTINGS = "settings.json"
"""The name of the file that records the settings of all images in a folder."""
_FOLDERS = ("images", "small", "progressive")
_SUFFIXES = {"strip": ".png", "gif": ".gif"}


class ImageFolder:
    """The results with one record of settings in a folder, which a `with` block claims (see `files.claim`).

    Several processes may fill a folder at the same time if their records are equal.

    Args:
        path: the folder, which is created by the `with` block.
        record: the settings of all images.
        progressive: the format of pictures of the intermediate steps; None writes none.
        force: use a folder with another record; its images are removed when the first result is written.

    Raises:
        SettingsMismatch: the folder holds images with another record, and `force` is not given; names the fields. The
            `with` block raises it for a folder that another process has begun since.
        StorageError: another process has the folder, and one of the two was given `force`.
        InputError: it holds images without a record; they may be the user's own, so they are not removed.
        ConfigError: its `settings.json` cannot be read.
    """

    def __init__(
        self,
        path: Path,
        record: SampleRecord | UpscaleRecord,
        *,
        progressive: Progressive | None = None,
        force: bool = False,
    ) -> None:
        self.path = path
        self.progressive: Progressive | None = progressive
        self.force = force
        self._record = dump(record)
        self._claim = claim(path, shared=not force, prepare=self._prepare)
        self._is_of_others = bool(self._compare(is_alone=True))

    def __enter__(self) -> Self:
        self._claim.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._claim.__exit__(*raised)

    def holds(self, name: str, small: np.ndarray | None = None) -> bool:
        """Whether all files that `write` makes for `name` exist, with this record and enlarged from `small`."""
        wanted = [self._image(name)] + ([self._intermediate(name)] if self.progressive else [])
        if self._is_of_others or not all(is_whole(path) for path in wanted):
            return False
        return small is None or (is_whole(self._small(name)) and np.array_equal(_read(self._small(name)), small))

    def is_of_another(self, name: str, small: np.ndarray) -> bool:
        """Whether there is an image of this name, enlarged from another one than `small`."""
        is_there = not self._is_of_others and is_whole(self._image(name)) and is_whole(self._small(name))
        return is_there and not np.array_equal(_read(self._small(name)), small)

    def write(
        self, name: str, pixels: np.ndarray, *, intermediate: np.ndarray | None = None, small: np.ndarray | None = None
    ) -> None:
        """Write one image.

        Args:
            name: name of its files, without the suffix; may contain folders.
            pixels: the image, uint8 (S, S, 3).
            intermediate: the intermediate steps, uint8 (F, H, W, 3), if the folder is progressive.
            small: the image from which it was enlarged, uint8 (s, s, 3), for super-resolution.

        Raises:
            StorageError: the disk is full, or the folder cannot be written to.
        """
        self._write_record()
        if self.progressive is not None:
            assert intermediate is not None
            content = (
                gif_bytes(intermediate)
                if self.progressive == "gif"
                else png_bytes(tile(intermediate, columns=len(intermediate)))
            )
            write_bytes(self._intermediate(name), content)
        write_bytes(self._image(name), png_bytes(pixels))
        if small is not None:  # written last: if this file exists, the image was enlarged from it
            write_bytes(self._small(name), png_bytes(small))

    def read(self, name: str) -> np.ndarray:
        """The pixels of one image, uint8 (S, S, 3).

        Raises:
            ImageError: its file is missing or damaged.
        """
        return _read(self._image(name))

    def write_grid(self, names: Sequence[str]) -> Path:
        """Write the first `MAX_IN_GRID` images of these names as one picture; returns its path."""
        path = self.path / "grid.png"
        write_bytes(path, png_bytes(tile(np.stack([self.read(name) for name in names[:MAX_IN_GRID]]))))
        return path

    def write_npz(self, path: Path, names: Sequence[str], labels: Sequence[int] | None, *, force: bool) -> None:
        """Write the images of these names as a batch in guided-diffusion's format.

        Raises:
            InputError: `path` exists with other content, and `force` is not given.
        """
        shape = (len(names), *self.read(names[0]).shape)
        with atomic_write(path) as partial:
            write_npz(partial, (self.read(name) for name in names), shape, labels)
            if path.exists() and not force and not filecmp.cmp(partial, path, shallow=False):
                raise InputError(f"{path}: holds other samples already; --force replaces it")

    def _prepare(self, is_alone: bool) -> None:
        """Write the record; with `force`, no other process has the folder, and the record waits for an image."""
        self._is_of_others = bool(self._compare(is_alone=is_alone))
        if not self.force:
            self._write_record()

    def _write_record(self) -> None:
        """Write the record if it is not there, and remove images of another record."""
        if self._is_of_others:
            for folder in _FOLDERS:
                for old in (self.path / folder).rglob("*.*"):
                    if old.is_file():
                        remove(old)
        elif self._settings.exists():
            return
        write_bytes(self._settings, (json.dumps(self._record, indent=2) + "\n").encode())
        self._is_of_others = False

    def _compare(self, *, is_alone: bool) -> list[str]:
        """The fields in which the folder's record differs; an error if the record is in use and `force` not given."""
        # In this order, because another process that starts at the same time writes the record before its first image.
        has_images = any((self.path / "images").glob("*"))
        differing = _differing(self._record, self._written_record(has_images))
        if differing and (has_images or not is_alone) and not self.force:
            raise SettingsMismatch(
                f"{self.path} was made with other settings: {', '.join(differing)}; --force replaces its images"
            )
        return differing

    def _written_record(self, has_images: bool) -> dict[str, Any]:
        """The record in the folder; this object's own record for a new folder."""
        if not self._settings.exists():
            if has_images:
                raise InputError(
                    f"{self.path}: holds images/ of unknown origin (no settings.json); give another folder"
                )
            return self._record
        record = read_json(self._settings)
        if isinstance(record.get("settings"), dict):
            record["settings"] = {**added_defaults(SamplingSettings), **record["settings"]}
        return record

    @property
    def _settings(self) -> Path:
        return self.path / SETTINGS

    def _image(self, name: str) -> Path:
        return result_path(self.path / "images", name, ".png")

    def _small(self, name: str) -> Path:
        return result_path(self.path / "small", name, ".png")

    def _intermediate(self, name: str) -> Path:
        assert self.progressive is not None
        return result_path(self.path / "progressive", name, _SUFFIXES[self.progressive])


def stored_precision(folder: Path) -> Precision | None:
    """The precision of the images in a folder; None if it has no record of it."""
    path = folder / SETTINGS
    settings = read_json(path).get("settings") if path.exists() else None
    if not isinstance(settings, dict):
        return None
    stored = {**added_defaults(SamplingSettings), **settings}["precision"]
    return stored if stored in get_args(Precision) else None


def _read(path: Path) -> np.ndarray:
    return decode(path, Limits(min_side=1)).pixels  # written by rediffuse, so images may be small


def _differing(given: dict[str, Any], there: dict[str, Any]) -> list[str]:
    """`field=value (there value)` for every field that differs; nested fields have their own names."""
    given, there = _flat(given), _flat(there)
    absent = object()
    return [
        f"{name}={given.get(name)} (there {there.get(name)})"
        for name in dict.fromkeys((*given, *there))
        if given.get(name, absent) != there.get(name, absent)
    ]


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    flat = {}
    for name, value in record.items():
        flat |= _flat(value) if isinstance(value, dict) else {name: value}
    return flat
