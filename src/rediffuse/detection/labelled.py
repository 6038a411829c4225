"""Find images of known class in the folders `real/` and `generated/`, with the group that each came from."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rediffuse.detection.left_out import collection_of
from rediffuse.errors import InputError
from rediffuse.images.find import FoundImage, find_images

CLASSES = ("real", "generated")
"""The names of the folders, in the order of the labels 0 and 1."""


@dataclass(frozen=True)
class LabelledImage:
    """A file, its class, and its group."""

    found: FoundImage
    label: int
    """0 real, 1 generated."""
    group: str
    """The source of the image: a generator, or a source of photographs. The folders below the class, such as
    `clothing/sender12`; for a file that lies directly in it, the class."""

    @property
    def collection(self) -> str:
        """The first part of `group`."""
        return collection_of(self.group)


def find_labelled(folder: Path) -> list[LabelledImage]:
    """The images in the subfolders `real/` and `generated/` of `folder`; names are relative to `folder`.

    Raises:
        InputError: one of the two subfolders is missing or holds no images, or a group has images of both classes.
    """
    images = []
    for label, name in enumerate(CLASSES):
        if not (folder / name).is_dir():
            raise InputError(f"{folder}: has no subfolder {name}/; {' and '.join(CLASSES)} are needed")
        for found in find_images([folder / name]):
            group = PurePosixPath(found.name).parent.as_posix()
            images.append(
                LabelledImage(FoundImage(found.path, f"{name}/{found.name}"), label, name if group == "." else group)
            )
    _require_one_class(images, str(folder))
    return images


def _require_one_class(images: Iterable[LabelledImage], source: str) -> None:
    labels: dict[str, int] = {}
    for image in images:
        if labels.setdefault(image.group, image.label) != image.label:
            raise InputError(f"{source}: the group {image.group} has images of both classes; one class is allowed")
