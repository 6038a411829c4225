"""What the header of an image file says, and whether its decoding is cheap."""

import struct
from dataclasses import dataclass

from rediffuse.images import png

MAX_PIXELS = 25_000_000
"""Largest image that may be cheap. Pillow's pixels, the array and the coefficients of a progressive JPEG take together
at most 13 bytes per pixel, 0.3 GB."""
MAX_BYTES = 64 << 20
MAX_PARTS = {"JPEG": 100, "PNG": 20_000}
"""Largest number of segments or chunks; Pillow reads each in Python."""
MAX_SCANS = 32
"""Of a progressive JPEG: each scan passes over all pixels. Usual are 10, and those of an embedded preview."""

_SIZE_SEGMENTS = (0xC0, 0xC1, 0xC2)
"""The JPEG segments with the size: baseline, extended, progressive."""
_OTHER_SEGMENTS = (0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0))
"""Tables, comments and data of applications."""
_SCAN = 0xDA


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What the header of an image file says."""

    codec: str
    size: tuple[int, int]
    """(width, height) as stored."""
    orientation: int
    """The EXIF orientation, 1 where there is none."""


def is_cheap(content: bytes) -> bool:
    """Whether a file is a JPEG or PNG whose decoding takes at most about 2 s and 0.3 GB, however it was made.

    A file of another format, or one that cannot be judged from its header, is not.
    """
    if len(content) > MAX_BYTES:
        return False
    if content.startswith(png.SIGNATURE):
        pixels = _png_pixels(content)
    elif content[:3] == b"\xff\xd8\xff" and content.count(b"\xff\xda") <= MAX_SCANS:
        pixels = _jpeg_pixels(content)
    else:
        return False
    return pixels is not None and pixels <= MAX_PIXELS


def _png_pixels(content: bytes) -> int | None:
    """The number of pixels; None if there are too many chunks, or not one header at the begin."""
    if content[8:16] != b"\0\0\0\x0dIHDR" or len(content) < 24 or content.count(b"IHDR") > 1:
        return None
    place = 8
    for _ in range(MAX_PARTS["PNG"]):
        if place + 8 > len(content) or content[place + 4 : place + 8] == b"IEND":
            width, height = struct.unpack_from(">II", content, 16)
            return width * height
        place += 12 + struct.unpack_from(">I", content, place)[0]
    return None


def _jpeg_pixels(content: bytes) -> int | None:
    """The number of pixels; None if the segments before the pixels are not those of a usual JPEG."""
    place, pixels = 2, None
    for _ in range(MAX_PARTS["JPEG"]):
        if place + 9 > len(content) or content[place] != 0xFF:
            return None
        kind, length = content[place + 1], struct.unpack_from(">H", content, place + 2)[0]
        if kind == _SCAN:
            return pixels
        if kind in _SIZE_SEGMENTS and pixels is None:
            height, width = struct.unpack_from(">HH", content, place + 5)
            pixels = width * height
        elif kind not in _OTHER_SEGMENTS:
            return None
        place += 2 + length
    return None
