"""Changes of images with a strength, and changed copies of images, which are made when they are loaded."""

from dataclasses import dataclass

import numpy as np

from rediffuse.errors import ImageError
from rediffuse.images import degrade
from rediffuse.images.config import ChangeName
from rediffuse.images.find import FoundImage, MemoryImage

LONGEST_SIDES: dict[ChangeName, int] = {"jpeg": 65_500, "webp": 16_383, "screenshot": 21_000}
"""The longest side that an encoder takes, in pixels; a screenshot is a JPEG of up to 3 times the size."""


@dataclass(frozen=True)
class Change:
    """A change of an image; `str` gives it in words that follow "after"."""

    name: ChangeName
    strength: float
    """Of `jpeg` and `webp` the quality, of `reduce` and `crop` the share of each side that is left, of `blur` its sigma
    in pixels, of `noise` its sigma in levels of 0 to 255, of `screenshot` the display scale (`degrade.screenshot`)."""

    def __str__(self) -> str:
        match self.name:
            case "jpeg":
                return f"JPEG compression of quality {self.strength:g}"
            case "webp":
                return f"WebP compression of quality {self.strength:g}"
            case "reduce":
                return f"a reduction to {self.strength:.0%} of the size"
            case "crop":
                return f"a crop to {self.strength:.0%} of each side"
            case "blur":
                return f"a blur with a sigma of {self.strength:g} pixels"
            case "noise":
                return f"noise with a sigma of {self.strength:g} levels"
            case "screenshot":
                return f"a screenshot at a display scale of {self.strength:.0%}"

    @property
    def key(self) -> str:
        """The change in the name of a column: `jpeg_75`."""
        return f"{self.name}_{self.strength:g}"

    def apply(self, pixels: np.ndarray, seed: int = 0) -> np.ndarray:
        """The changed pixels, uint8 (H, W, 3), of other sides for `reduce`, `crop` and `screenshot`.

        Args:
            pixels: uint8, (H, W, 3).
            seed: of the noise.

        Raises:
            ConfigError: the strength is outside the range of the function in `degrade`.
        """
        match self.name:
            case "jpeg":
                return degrade.jpeg(pixels, round(self.strength))
            case "webp":
                return degrade.webp(pixels, round(self.strength))
            case "reduce":
                return degrade.scale(pixels, self.strength)
            case "crop":
                return degrade.crop_border(pixels, (1 - self.strength) / 2)
            case "blur":
                return degrade.blur(pixels, self.strength)
            case "noise":
                return degrade.gaussian_noise(pixels, self.strength, np.random.default_rng(seed))
            case "screenshot":
                return degrade.screenshot(pixels, self.strength)


@dataclass(frozen=True)
class ChangedImage:
    """A changed copy of an image. Its results have the name of the original.

    It holds no pixels: the original is decoded and changed when the copy is loaded, so many can wait in a queue.
    """

    original: FoundImage | MemoryImage
    change: Change
    seed: int = 0
    """Of the noise."""

    @property
    def name(self) -> str:
        """The name of the original."""
        return self.original.name

    @property
    def label(self) -> int | None:
        """The class of the original."""
        return self.original.label

    @property
    def source(self) -> str:
        """The copy's name in messages."""
        return f"{self.original.source} after {self.change}"

    def pixels(self, original: np.ndarray) -> np.ndarray:
        """The changed pixels of the original's pixels.

        Raises:
            ImageError: the original is too large for the encoder.
        """
        height, width = original.shape[:2]
        longest = LONGEST_SIDES.get(self.change.name)
        if longest is not None and max(height, width) > longest:
            raise ImageError(
                f"{self.source}: {width}x{height} pixels, at most {longest} on each side can be changed so"
            )
        return self.change.apply(original, self.seed)
