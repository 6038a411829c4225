"""Facts about an image file other than its picture: format, size, compression, metadata, signs of an earlier JPEG.

If these differ between real and generated training images, a detector can learn them instead of signs of generation.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from io import BytesIO

import numpy as np
from PIL import ExifTags, Image, JpegImagePlugin, PngImagePlugin

from rediffuse.images.decode import printable
from rediffuse.images.rows import open_for_metadata, open_image, pillow_silenced
from rediffuse.images.windows import GRID

_SUBSAMPLINGS = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}
_UNSTORED_QUALITY = ("WEBP", "AVIF", "JPEG2000")
"""Lossy formats that do not store how strongly a file is compressed."""
_LARGEST_STEP = 24.0
"""In levels of 0 to 255; larger differences of neighbouring pixels are edges of the picture, not of blocks."""
_STATED = ("Make", "Model", "Software", "DateTime", "Artist", "Copyright", "ImageDescription")
"""The EXIF entries of `metadata_of`."""
_MOST_ENTRIES, _LONGEST_VALUE = 20, 300
_LOOKED_AT = 512
"""Largest number of rows and of columns that `block_grid` uses."""


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """The facts of one file; None if its format does not have one."""

    codec: str
    """One of `rows.CODECS`, or `WEBP lossless`."""
    width: int
    """In pixels, as stored."""
    height: int
    """In pixels, as stored."""
    mode: str
    """Pillow's name of the colour mode, such as RGB, RGBA, L or P."""
    bit_depth: int
    """Bits per value."""
    quality: int | None
    """Of a JPEG, 1 to 100: the quality for which libjpeg's luma table is most similar to the file's."""
    tables: str | None
    """Digest of the quantisation tables of a JPEG."""
    subsampling: str | None
    """Of the colour planes of a JPEG."""
    progressive: bool
    """A progressive JPEG or an interlaced PNG."""
    bytes_per_pixel: float | None
    """Of lossy formats that do not store their quality. In other formats the file size depends only on the quality,
    which is known, and on the picture."""
    density: str | None
    """The pixel density that the file states."""
    exif: bool
    icc: bool
    xmp: bool
    text: bool
    """Comments and other text, such as a generator's prompt."""


def facts_of(content: bytes, name: str) -> FileFacts:
    """The facts of an image file that `decode.decode_bytes` accepts, from its bytes.

    Args:
        content: the bytes of the file.
        name: what the error calls it.

    Raises:
        ImageError: the bytes are no image of a kind that is read.
    """
    with pillow_silenced:
        image, noted = open_image(content, name), open_for_metadata(content, name)
        # Reading `text` also reads the chunks after the pixels.
        text = dict(noted.text) if isinstance(noted, PngImagePlugin.PngImageFile) else {}
        info = noted.info
        width, height = image.size
        codec = _codec(image.format, content)
        tables = _tables(image)
        xmp = "xmp" in info or text.pop("XML:com.adobe.xmp", None) is not None
        return FileFacts(
            codec=codec,
            width=width,
            height=height,
            mode=image.mode,
            bit_depth=_bit_depth(codec, image.mode, content),
            quality=None if tables is None else _quality(tables[0]),
            tables=None if tables is None else hashlib.sha256(tables.tobytes()).hexdigest()[:8],
            subsampling=_subsampling(image),
            progressive=bool(image.info.get("progressive") or image.info.get("interlace")),
            bytes_per_pixel=len(content) / (width * height) if codec in _UNSTORED_QUALITY else None,
            density=_density(info.get("dpi") or info.get("jfif_density")),
            exif=bool(info.get("exif")),
            icc=bool(info.get("icc_profile")),
            xmp=xmp,
            text=bool(text or info.get("comment")),
        )


def metadata_of(content: bytes, name: str) -> dict[str, str]:
    """What a file states about its origin: camera and program from EXIF, comments, and text such as a prompt.

    Anybody can write, change or remove these entries. At most 20 are given, and of each the first 300 characters.
    Arguments and errors are those of `facts_of`.
    """
    with pillow_silenced:
        image = open_for_metadata(content, name)
        stated: dict[str, object] = {}
        try:
            exif = image.getexif()
        except Exception:  # unreadable EXIF data state nothing; Pillow's parser can raise almost any exception
            exif = {}
        for entry in _STATED:
            if value := exif.get(ExifTags.Base[entry]):
                stated[entry] = value
        if comment := image.info.get("comment"):
            stated["comment"] = comment
        if isinstance(image, PngImagePlugin.PngImageFile):
            stated |= image.text
    return {printable(key)[:_LONGEST_VALUE]: _text(value) for key, value in list(stated.items())[:_MOST_ENTRIES]}


def block_grid(pixels: np.ndarray) -> float:
    """How clearly the pixels show the 8-pixel blocks of a JPEG, in a file of any format.

    The difference of two neighbouring pixels is compared with the mean of the two differences beside it. At the edges
    of blocks it is larger. These excess differences of luma are averaged over each row and column, then over those of
    equal phase modulo 8. The result is the excess of the largest of the 8 phases over their median, in standard errors,
    so that it hardly depends on the texture: 1 or 2 if the image was never a JPEG, or was resampled later. Some
    generators leave a grid too.

    Args:
        pixels: uint8, (H, W, 3); only the middle 512 rows and columns are used.

    Returns:
        A number from 0 on; 0 if a side has fewer than 32 pixels.
    """
    top, left = (max(0, (side - _LOOKED_AT) // 2) for side in pixels.shape[:2])
    middle = pixels[top : top + _LOOKED_AT, left : left + _LOOKED_AT]
    if min(middle.shape[:2]) < 4 * GRID:
        return 0.0
    luma = middle.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)  # (H, W)
    return float(np.mean([_grid_of_rows(luma), _grid_of_rows(luma.T)]))


def _grid_of_rows(luma: np.ndarray) -> float:
    steps = np.minimum(np.abs(np.diff(luma, axis=0)), _LARGEST_STEP)  # (H - 1, W): step i leads from row i to i + 1
    surplus = (steps[1:-1] - (steps[:-2] + steps[2:]) / 2).mean(axis=1)  # (H - 3,)
    phases = np.array([surplus[phase::GRID].mean() for phase in range(GRID)])
    standard_error = surplus.std() / (len(surplus) / GRID) ** 0.5
    return float((phases.max() - np.median(phases)) / (standard_error + 1e-3))


def _text(value: object) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return printable(" ".join(text.replace("\0", " ").split())[:_LONGEST_VALUE])


def _codec(codec: str | None, content: bytes) -> str:
    if codec == "WEBP" and b"VP8L" in content[:64]:
        return "WEBP lossless"
    return "JPEG" if codec == "MPO" else str(codec)


def _bit_depth(codec: str, mode: str, content: bytes) -> int:
    if codec == "PNG":
        return content[24]  # the header's ninth byte
    return 16 if mode.startswith("I") else 1 if mode == "1" else 8


def _tables(image: Image.Image) -> np.ndarray | None:
    """The quantisation tables of a JPEG, (number, 64), luma first."""
    if not isinstance(image, JpegImagePlugin.JpegImageFile):
        return None
    tables = [image.quantization[number] for number in sorted(image.quantization)]
    return np.array(tables, dtype=np.int32) if tables else None


def _subsampling(image: Image.Image) -> str | None:
    if not isinstance(image, JpegImagePlugin.JpegImageFile) or len(image.layer) == 1:
        return None
    return _SUBSAMPLINGS.get(JpegImagePlugin.get_sampling(image), "other")


def _quality(luma: np.ndarray) -> int:
    return 1 + int(np.abs(_libjpeg_luma() - luma).sum(axis=1).argmin())


@cache
def _libjpeg_luma() -> np.ndarray:
    """The luma tables of the qualities from 1 to 100, (100, 64), as Pillow's libjpeg writes them."""
    tables = []
    for quality in range(1, 101):
        file = BytesIO()
        Image.new("L", (8, 8)).save(file, "JPEG", quality=quality)
        with Image.open(file) as image:
            assert isinstance(image, JpegImagePlugin.JpegImageFile)
            tables.append(image.quantization[0])
    return np.array(tables, dtype=np.int32)


def _density(value: object) -> str | None:
    return "x".join(f"{float(part):.0f}" for part in value) if isinstance(value, tuple) else None
