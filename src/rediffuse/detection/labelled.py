"""Find images of known class in the folders `real/` and `generated/`."""

from dataclasses import dataclass
from pathlib import Path

from rediffuse.errors import InputError
from rediffuse.images.find import FoundImage, find_images

CLASSES = ("real", "generated")
"""The names of the folders, in the order of the labels 0 and 1."""


@dataclass(frozen=True)
class LabelledImage:
    """A file, its class, and its source."""

    found: FoundImage
    label: int
    """0 real, 1 generated."""
    source: str
    """`real`, or for a generated image the name of its subfolder of `generated/`, which names the generator."""


def find_labelled(folder: Path) -> list[LabelledImage]:
    """The images in the subfolders `real/` and `generated/` of `folder`; names are relative to `folder`.

    Raises:
        InputError: one of the two subfolders is missing or holds no images.
    """
    images = []
    for label, name in enumerate(CLASSES):
        if not (folder / name).is_dir():
            raise InputError(f"{folder}: has no subfolder {name}/; {' and '.join(CLASSES)} are needed")
        for found in find_images([folder / name]):
            first, _, below = found.name.partition("/")
            source = first if label and below else name
            images.append(LabelledImage(FoundImage(found.path, f"{name}/{found.name}"), label, source))
    return images
