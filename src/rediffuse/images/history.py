"""Random reductions, blurs and encodings for training images, drawn from the same distribution for both classes.

Photographs and generated images have different file histories: a website reduced a photograph and saved it as JPEG, and
a generated image is still the PNG that its generator wrote. A detector trained on such files learns these differences.
So every file of both classes gets a further reduction and encoding, drawn from one distribution.
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
    """One reduction, one blur, and one encoding."""

    short_side: int | None = None
    """Short side after the reduction, in pixels; None for no reduction. Images that are not larger do not change."""
    filter: Filter = "bicubic"
    """Resampling filter of the reduction."""
    encoding: Encoding = "none"
    quality: int = 90
    """Quality of the encoding, 1 to 100."""
    subsampling: Subsampling = "4:2:0"
    """Subsampling of the chroma planes of a JPEG; WebP always has 4:2:0."""
    blur: float = 0.0
    """Standard deviation of a Gaussian blur after the reduction, in pixels; 0 for none."""

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Reduce, blur and encode uint8 pixels (H, W, 3); returns the decoded pixels, smaller if they were reduced."""
        if self.short_side is not None:
            pixels = degrade.reduce(pixels, self.short_side, self.filter)
        pixels = degrade.blur(pixels, self.blur)
        match self.encoding:
            case "JPEG":
                return degrade.jpeg(pixels, self.quality, subsampling=self.subsampling)
            case "WEBP":
                return degrade.webp(pixels, self.quality)
            case "none":
                return pixels


@dataclass(frozen=True, kw_only=True)
class Histories:
    """The distribution of histories: every field is drawn independently, with equal probability for each value."""

    short_sides: tuple[int | None, ...] = (None, 400, 320, 256)
    filters: tuple[Filter, ...] = get_args(Filter)
    encodings: tuple[Encoding, ...] = ("JPEG", "JPEG", "WEBP", "none")
    qualities: tuple[int, int] = (75, 95)
    """Lowest and highest quality."""
    subsamplings: tuple[Subsampling, ...] = ("4:2:0", "4:4:4")
    blurs: tuple[float, float] = (0.0, 0.0)
    """Smallest and largest blur, in pixels."""

    def __post_init__(self) -> None:
        for name in ("short_sides", "filters", "encodings", "subsamplings"):
            if not getattr(self, name):
                raise ConfigError(f"{name}=(): at least one value is needed")
        low, high = self.qualities
        if not 1 <= low <= high <= 100:
            raise ConfigError(f"qualities={self.qualities}: from 1 to 100 are allowed, the lower value first")
        if not 0 <= self.blurs[0] <= self.blurs[1] <= degrade.MOST_BLUR:
            raise ConfigError(
                f"blurs={self.blurs}: from 0 to {degrade.MOST_BLUR} pixels are allowed, the lower value first"
            )

    def draw(self, rng: np.random.Generator) -> History:
        """Draw one history."""
        low, high = self.qualities
        return History(
            short_side=self.short_sides[rng.integers(len(self.short_sides))],
            filter=self.filters[rng.integers(len(self.filters))],
            encoding=self.encodings[rng.integers(len(self.encodings))],
            quality=int(rng.integers(low, high, endpoint=True)),
            subsampling=self.subsamplings[rng.integers(len(self.subsamplings))],
            blur=float(rng.uniform(*self.blurs)) if self.blurs[1] else 0.0,
        )
