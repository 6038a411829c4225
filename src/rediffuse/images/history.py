"""What happened to the pixels of a file before it was judged, drawn alike for real and for generated images.

Photographs and generated images reach a collection in different ways: one was reduced and saved as JPEG by a website,
the other is the PNG that its generator wrote. A detector trained on them as they are learns these differences. Here
every file, of either class, goes through a further reduction and encoding that are drawn from one distribution.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from rediffuse.errors import ConfigError
from rediffuse.images import degrade
from rediffuse.images.degrade import Filter
from rediffuse.images.encode import Subsampling

Encoding = Literal["JPEG", "WEBP", "none"]


@dataclass(frozen=True, kw_only=True)
class History:
    """One reduction and one encoding."""

    short_side: int | None = None
    """Short side after the reduction, in pixels; None, and an image that is no larger, is not resampled."""
    filter: Filter = "bicubic"
    """Of the reduction."""
    encoding: Encoding = "none"
    quality: int = 90
    """Of the encoding, 1 to 100."""
    subsampling: Subsampling = "4:2:0"
    """Of the colour planes of a JPEG; WebP always has 4:2:0."""

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels (H, W, 3) that have gone through it, uint8; smaller where they are reduced."""
        if self.short_side is not None:
            pixels = degrade.reduce(pixels, self.short_side, self.filter)
        match self.encoding:
            case "JPEG":
                return degrade.jpeg(pixels, self.quality, subsampling=self.subsampling)
            case "WEBP":
                return degrade.webp(pixels, self.quality)
            case "none":
                return pixels


@dataclass(frozen=True, kw_only=True)
class Histories:
    """The distribution of histories: every field is drawn by itself, all its values equally often."""

    short_sides: tuple[int | None, ...] = (None, 400, 320, 256)
    filters: tuple[Filter, ...] = get_args(Filter)
    encodings: tuple[Encoding, ...] = ("JPEG", "JPEG", "WEBP", "none")
    qualities: tuple[int, int] = (75, 95)
    """Lowest and highest."""
    subsamplings: tuple[Subsampling, ...] = ("4:2:0", "4:4:4")

    def __post_init__(self) -> None:
        for name in ("short_sides", "filters", "encodings", "subsamplings"):
            if not getattr(self, name):
                raise ConfigError(f"{name}=(): at least one value is needed")
        low, high = self.qualities
        if not 1 <= low <= high <= 100:
            raise ConfigError(f"qualities={self.qualities}: from 1 to 100 are allowed, the lower one first")

    def draw(self, rng: np.random.Generator) -> History:
        """Draw one history."""
        low, high = self.qualities
        return History(
            short_side=self.short_sides[rng.integers(len(self.short_sides))],
            filter=self.filters[rng.integers(len(self.filters))],
            encoding=self.encodings[rng.integers(len(self.encodings))],
            quality=int(rng.integers(low, high, endpoint=True)),
            subsampling=self.subsamplings[rng.integers(len(self.subsamplings))],
        )
