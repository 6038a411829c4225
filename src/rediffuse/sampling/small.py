"""The small images that a super-resolution model enlarges, from image files or from a batch of samples."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rediffuse.errors import ConfigError, ImageError, InputError, shown
from rediffuse.images.config import Crop
from rediffuse.images.crop import CROPS
from rediffuse.images.decode import decode
from rediffuse.images.find import FoundImage
from rediffuse.images.npz import read_npz
from rediffuse.sampling.config import Request
from rediffuse.zoo.model import DiffusionModel


@dataclass(frozen=True, kw_only=True)
class SmallImage:
    """One image to enlarge."""

    name: str
    """Name of the result, without the suffix."""
    pixels: np.ndarray
    """The image, uint8 (s, s, 3)."""
    label: int | None = None
    """Its class, for a class-conditional model."""

    def seed(self, base: int) -> int:
        """The seed of its noise. It depends only on the pixels and on `base`, not on other images or their order."""
        return int.from_bytes(hashlib.sha256(base.to_bytes(8) + self.pixels.tobytes()).digest()[:4])


def small_size(model: DiffusionModel, given: int | None) -> int:
    """The side of the images that a super-resolution model enlarges, in pixels.

    Args:
        model: the model; its record of the training holds the size, unless another program trained it.
        given: the size given by the user; None to use that of the record.

    Raises:
        ConfigError: the model is not a super-resolution model, the size is in neither of the two, they differ, or the
            size is not allowed.
    """
    if model.kind != "superres":
        raise ConfigError(f"{model.provenance.source}: is a {model.kind} model; upscale takes a superres model")
    known: Mapping[str, Any] = model.training
    recorded = known.get("small_size")
    if given is None and recorded is None:
        raise ConfigError(f"{model.provenance.source}: does not record the size of its small images; give --small-size")
    if recorded is not None and type(recorded) is not int:
        raise ConfigError(f"{model.provenance.source}: small_size={shown(recorded)}: a whole number is needed")
    if None not in (given, recorded) and given != recorded:
        raise ConfigError(f"--small-size {given}: {model.provenance.source} was trained to enlarge {recorded} px")
    size = given if recorded is None else recorded
    assert size is not None
    if not 1 <= size <= model.image_size:
        raise ConfigError(f"--small-size {size}: from 1 to {model.image_size}, the model's own size, are allowed")
    return size


def from_npz(path: Path, size: int, label: int | None, num_classes: int | None) -> list[SmallImage]:
    """The images of a batch of samples; their names consist of the class, if any, and the position in the batch.

    Args:
        path: an `.npz` file in guided-diffusion's format.
        size: the size that its images must have, in pixels.
        label: the class of all images; None uses the classes in the file.
        num_classes: number of the model's classes; None if it has none, and the classes in the file are not used.

    Raises:
        InputError: the file cannot be read, its images are of another size, or a class is missing or out of range.
    """
    pixels, labels = read_npz(path)
    height, width = pixels.shape[1:3]
    if (height, width) != (size, size):
        raise InputError(f"{path}: its images are {width}x{height} px; this model enlarges {size}x{size}")
    of_place: Sequence[int | None] = [label] * len(pixels)
    if num_classes is not None and label is None:
        if labels is None:
            raise InputError(
                f"{path}: has no classes (arr_1), which this model needs; give one class for all with --class"
            )
        if labels.min() < 0 or labels.max() >= num_classes:
            given = f"{labels.min()} to {labels.max()}"
            raise InputError(f"{path}: its classes (arr_1) span {given}; 0 to {num_classes - 1} are allowed")
        of_place = labels.tolist()
    return [
        SmallImage(name=Request(place, label).name, pixels=image, label=label)
        for place, (image, label) in enumerate(zip(pixels, of_place, strict=True))
    ]


def from_files(
    files: Sequence[FoundImage], size: int, crop: Crop, label: int | None
) -> tuple[list[SmallImage], list[str]]:
    """Read image files as squares of `size` pixels.

    Args:
        files: from `find_images`.
        size: in pixels.
        crop: `center` scales the shorter side to `size` and cuts out the middle; `squash` scales both sides.
        label: the class of all images, for a class-conditional model.

    Returns:
        The images with the names of their files, and one error line for each file that cannot be read.
    """
    images, reasons = [], []
    for found in files:
        try:
            pixels = CROPS[crop](decode(found.path, found.limits).pixels, size)
        except ImageError as error:
            reasons.append(str(error))
        else:
            images.append(SmallImage(name=found.name, pixels=pixels, label=label))
    return images, reasons
