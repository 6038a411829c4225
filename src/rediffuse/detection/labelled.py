"""Folders of images whose class is known."""

from dataclasses import dataclass
from pathlib import Path

from rediffuse.errors import InputError
from rediffuse.images.find import FoundImage, find_images

CLASSES = ("real", "generated")
"""Folders by label: 0 and 1."""


@dataclass(frozen=True)
class LabelledImage:
    """A file, its class, and where it comes from."""

    found: FoundImage
    label: int
    """0 real, 1 generated."""
    source: str
    """`real`, or for a generated image the folder below `generated/` that it lies in: what made it."""


def find_labelled(folder: Path) -> list[LabelledImage]:
    """The images in `real/` and `generated/` below `folder`; names are relative to `folder`.

    Raises:
        InputError: one of the two is missing or holds no images.
    """
    images = []
    for label, name in enumerate(CLASSES):
        if not (folder / name).is_dir():
            raise InputError(f"{folder}: holds no folder {name}/; {' and '.join(CLASSES)} are needed")
        for found in find_images([folder / name]):
            first, _, below = found.name.partition("/")
            source = first if label and below else name
            images.append(LabelledImage(FoundImage(found.path, f"{name}/{found.name}"), label, source))
    return images
