"""Common degradations of images (compression, scaling, blur, noise): uint8 pixels (H, W, 3) to uint8 pixels (H, W, 3).

They are applied in training, in tests of robustness, and to copies of a file that a user has judged, never to the file
itself.
"""

import math
from io import BytesIO
from typing import Literal

import numpy as np
from PIL import Image, ImageFilter

from rediffuse.errors import ConfigError
from rediffuse.images.encode import Subsampling, jpeg_bytes, webp_bytes

Filter = Literal["bilinear", "bicubic", "lanczos"]
"""Pillow's resampling filters; when reducing, each averages over all pixels that one new pixel covers."""

SHOWN_AT = 0.75
"""In `screenshot`: the size at which a page shows an image."""
PAGE_BORDER = 37
"""In `screenshot`: the page around the image, in pixels. It is not a multiple of 8, the side of a JPEG block."""
SCREENSHOT_QUALITY = 85
"""In `screenshot`: the quality of the JPEG."""

MOST_BLUR = 100
"""The largest standard deviation of `blur`, in pixels."""

_FILTERS: dict[Filter, Image.Resampling] = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def jpeg(pixels: np.ndarray, quality: int, *, subsampling: Subsampling = "4:2:0") -> np.ndarray:
    """The pixels after JPEG compression at this quality (1 to 100)."""
    _check("quality", quality, 1, 100)
    return _decoded(jpeg_bytes(pixels, quality, subsampling=subsampling))


def webp(pixels: np.ndarray, quality: int) -> np.ndarray:
    """The pixels after lossy WebP compression at this quality (0 to 100)."""
    _check("quality", quality, 0, 100)
    return _decoded(webp_bytes(pixels, quality))


def resize(pixels: np.ndarray, scale: float) -> np.ndarray:
    """Scale by `scale` (0.01 to 4) and back to the original size, both bicubic."""
    _check("scale", scale, 0.01, 4)
    image = Image.fromarray(pixels)
    width, height = (max(1, round(side * scale)) for side in image.size)
    between = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.array(between.resize(image.size, Image.Resampling.BICUBIC))


def reduce(pixels: np.ndarray, short_side: int, filter: Filter = "bicubic") -> np.ndarray:
    """Reduce until the short side has `short_side` pixels (at least 1); smaller images are returned unchanged."""
    _check("short_side", short_side, 1, math.inf)
    height, width = pixels.shape[:2]
    if min(height, width) <= short_side:
        return pixels
    scale = short_side / min(height, width)
    size = (round(width * scale), round(height * scale))
    return np.array(Image.fromarray(pixels).resize(size, _FILTERS[filter]))


def scale(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Scale both sides by `factor` (0.01 to 4), bicubic; no side gets shorter than 1 pixel."""
    _check("factor", factor, 0.01, 4)
    height, width = pixels.shape[:2]
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def screenshot(pixels: np.ndarray, display_scale: float) -> np.ndarray:
    """The image in a picture of the screen, after the page around it was cut off.

    A page shows the image at `SHOWN_AT` of its size, and the system enlarges the page by its display scale, which is
    rarely a whole number. The picture of the screen has a border of the white page (`PAGE_BORDER`), and is saved or
    sent as JPEG (`SCREENSHOT_QUALITY`). At last the border is cut off, as people do who show the image and not the
    page. So the image was resampled twice, and the blocks of the JPEG do not begin at its corner.

    Args:
        pixels: uint8, (H, W, 3).
        display_scale: the enlargement of the page, 1 to 3.
    """
    _check("display_scale", display_scale, 1, 3)
    shown = scale(scale(pixels, SHOWN_AT), display_scale)
    height, width = shown.shape[:2]
    screen = np.pad(shown, ((PAGE_BORDER, PAGE_BORDER), (PAGE_BORDER, PAGE_BORDER), (0, 0)), constant_values=255)
    saved = jpeg(screen, SCREENSHOT_QUALITY)
    return saved[PAGE_BORDER : PAGE_BORDER + height, PAGE_BORDER : PAGE_BORDER + width].copy()


def blur(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur; `sigma` in pixels, 0 changes nothing."""
    _check("sigma", sigma, 0, MOST_BLUR)
    return np.array(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(sigma)))


def gaussian_noise(pixels: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Add independent normal noise to every value; `sigma` in levels of 0 to 255."""
    _check("sigma", sigma, 0, 255)
    return np.rint(pixels + sigma * rng.standard_normal(pixels.shape)).clip(0, 255).astype(np.uint8)


def crop_border(pixels: np.ndarray, fraction: float) -> np.ndarray:
    """Cut off a border of `fraction` (0 to 0.45) of each side at each of its ends; the result is smaller."""
    _check("fraction", fraction, 0, 0.45)
    rows, columns = (round(side * fraction) for side in pixels.shape[:2])
    return pixels[rows : pixels.shape[0] - rows, columns : pixels.shape[1] - columns].copy()


def _check(name: str, given: float, low: float, high: float) -> None:
    if not low <= given <= high:
        raise ConfigError(f"{name}={given}: from {low:g} to {high:g} are allowed")


def _decoded(content: bytes) -> np.ndarray:
    return np.array(Image.open(BytesIO(content)).convert("RGB"))
