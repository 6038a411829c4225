"""What a person is shown of an image beside its reconstruction: the image, made smaller, and what its file states."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from rediffuse.images.facts import FileFacts, facts_of_image, metadata_of
from rediffuse.images.rows import open_image, pillow_silenced

LONGEST = 400
"""Largest side in pixels of the small image."""


@dataclass(frozen=True, kw_only=True)
class Original:
    """An image as it is, and its file."""

    pixels: np.ndarray
    """uint8, (h, w, 3): the image, reduced to `LONGEST` pixels; a smaller one is unchanged."""
    size: tuple[int, int]
    """(width, height) of the image, upright, in pixels."""
    facts: FileFacts | None = None
    """None for an image in memory, or a changed copy, which are no files; so are the next two."""
    num_bytes: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    """See `facts.metadata_of`."""


def original_of(pixels: np.ndarray, content: bytes | None = None, name: str = "") -> Original:
    """What is shown of an image.

    Args:
        pixels: uint8, (H, W, 3), upright.
        content: the bytes of its file; None if it is no file.
        name: the file's name in errors.

    Raises:
        ImageError: the bytes are not those of an image.
    """
    height, width = pixels.shape[:2]
    small = Image.fromarray(pixels)
    small.thumbnail((LONGEST, LONGEST), Image.Resampling.BICUBIC, reducing_gap=2)
    of_file = {}
    if content is not None:
        with pillow_silenced:
            image = open_image(content, name)
            of_file = {
                "facts": facts_of_image(image, content),
                "num_bytes": len(content),
                "metadata": metadata_of(image),
            }
    return Original(pixels=np.asarray(small), size=(width, height), **of_file)
