"""What a person is shown of an image beside its reconstruction: the image, made smaller, and what its file states."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F

from rediffuse.images.facts import FileFacts, facts_of, metadata_of

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
    of_file = {}
    if content is not None:
        of_file = {
            "facts": facts_of(content, name),
            "num_bytes": len(content),
            "metadata": metadata_of(content, name),
        }
    return Original(pixels=_reduced(pixels), size=(width, height), **of_file)


def _reduced(pixels: np.ndarray) -> np.ndarray:
    """An image whose longer side is at most `LONGEST`. torch computes a filter of Pillow, 3 to 5 times as fast."""
    height, width = pixels.shape[:2]
    scale = LONGEST / max(height, width)
    if scale >= 1:
        return pixels.copy()
    images = torch.from_numpy(np.require(pixels, requirements="W"))[None]  # (1, H, W, 3)
    size = (max(1, round(scale * height)), max(1, round(scale * width)))
    small = F.interpolate(images.permute(0, 3, 1, 2), size=size, mode="bilinear", antialias=True)
    return small.permute(0, 2, 3, 1)[0].contiguous().numpy()
