"""The chunks of a PNG file (ISO/IEC 15948), for what Pillow does not offer. Imports no numpy; see `rows`."""

import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
"""The first bytes of a PNG."""
_HEADER_END = 33
"""The place behind the signature and the header, which is the first chunk."""
_PIXELS = (b"IDAT", b"acTL", b"fcTL", b"fdAT")
"""The chunks of pixels, and of the frames of an animation."""


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk: its length, its kind, its data and their checksum."""
    return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)


def with_one_pixel(content: bytes) -> bytes:
    """The same PNG with a single pixel, which is 0, and a single frame; all other chunks are unchanged."""
    header = b"".join([(1).to_bytes(4) * 2, content[24:28], b"\0"])  # 1 x 1, the same kind of pixels, not interlaced
    parts = [SIGNATURE, chunk(b"IHDR", header)]
    place, has_pixel = _HEADER_END, False
    while place < len(content):
        kind, end = content[place + 4 : place + 8], place + 12 + int.from_bytes(content[place : place + 4])
        if kind not in _PIXELS:
            parts.append(content[place:end])
        elif kind == b"IDAT" and not has_pixel:
            parts.append(chunk(kind, zlib.compress(bytes(9))))  # the number of a filter, and up to 8 bytes per pixel
            has_pixel = True
        place = end
    return b"".join(parts)
