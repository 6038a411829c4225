"""Encode pixels and maps as the bytes of image files.

Pillow writes the 8-bit files. It has no 16-bit RGB, so this module writes and reads the 16-bit PNGs of maps itself.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from rediffuse.errors import ImageError
from rediffuse.images import png
from rediffuse.stores import StoreFolder

Subsampling = Literal["4:4:4", "4:2:2", "4:2:0"]
"""Resolution of the two chroma planes of a JPEG: full, half in width, half in both directions."""

PNG16_STEP = 2 / 65535
"""Quantisation step of a map in a 16-bit PNG: reading back has an error of at most half of it."""

_SIXTEEN_BIT_RGB = bytes([16, 2, 0, 0, 0])  # bit depth, colour type, compression, filters, no interlacing
_ROW_ABOVE = 2  # PNG filter 2 ("up"): a byte is stored as its difference from the byte above


_ENDS = {".png": b"IEND\xaeB`\x82", ".gif": b";"}
"""The last bytes of a file, by its suffix."""


def is_whole(path: Path | StoreFolder) -> bool:
    """Whether a PNG or GIF, or another file that is not empty, is there and was not cut off. It is not decoded.

    Stores put whole files, so there it is enough that the file is not empty.
    """
    if isinstance(path, StoreFolder):
        return path.num_bytes() > 0
    try:
        with path.open("rb") as file:
            end = _ENDS.get(path.suffix, b"")
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - len(end)))
            return size > 0 and file.read(len(end)) == end
    except OSError:
        return False


def png_bytes(pixels: np.ndarray) -> bytes:
    """An 8-bit PNG of uint8 pixels, (H, W, 3) or gray (H, W); lossless."""
    return _save(pixels, "PNG")


def palette_png_bytes(places: np.ndarray, colours: np.ndarray) -> bytes:
    """A PNG of uint8 places (H, W) in a table of colours, uint8 (256, 3); the first colour is transparent."""
    picture = Image.fromarray(places)
    picture.putpalette(colours.tobytes())
    # Large areas of one colour are runs, which this kind of zlib's compression finds four times as fast.
    return _save(picture, "PNG", transparency=0, compress_type=zlib.Z_RLE)


def jpeg_bytes(pixels: np.ndarray, quality: int = 95, *, subsampling: Subsampling = "4:2:0") -> bytes:
    """A baseline JPEG of RGB pixels.

    Args:
        pixels: uint8 (H, W, 3).
        quality: from 1 to 100.
        subsampling: of the two chroma planes.
    """
    return _save(pixels, "JPEG", quality=quality, subsampling=subsampling)


def webp_bytes(pixels: np.ndarray, quality: int = 80) -> bytes:
    """A lossy WebP of uint8 pixels (H, W, 3); `quality` from 0 to 100."""
    return _save(pixels, "WEBP", quality=quality)


def gif_bytes(frames: np.ndarray, milliseconds: int = 100) -> bytes:
    """A GIF in an endless loop, of uint8 pixels (N, H, W, 3), 256 colours per frame; the last frame is shown longer."""
    pictures = [Image.fromarray(frame) for frame in frames]
    times = [milliseconds] * (len(pictures) - 1) + [20 * milliseconds]
    file = BytesIO()
    pictures[0].save(file, "GIF", save_all=True, append_images=pictures[1:], duration=times, loop=0)
    return file.getvalue()


def png16_bytes(values: np.ndarray) -> bytes:
    """A 16-bit RGB PNG of a map, 0 black and 2 white.

    Args:
        values: floating, (H, W, 3), in [0, 2].

    Returns:
        The file's bytes; `read_png16` returns `values` with an error of at most `PNG16_STEP / 2`.
    """
    assert values.ndim == 3, values.shape
    assert values.shape[2] == 3, values.shape
    assert np.all((values >= 0) & (values <= 2)), "a map lies in [0, 2]"
    height, width, _ = values.shape
    levels = np.rint(values.astype(np.float64) / PNG16_STEP).astype(">u2", order="C")  # big-endian, as in PNG
    rows = levels.view(np.uint8).reshape(height, 6 * width)
    differences = np.diff(rows, axis=0, prepend=np.zeros((1, 6 * width), np.uint8))  # modulo 256
    filtered = np.insert(differences, 0, _ROW_ABOVE, axis=1)
    return b"".join(
        [
            png.SIGNATURE,
            png.chunk(b"IHDR", struct.pack(">II", width, height) + _SIXTEEN_BIT_RGB),
            png.chunk(b"IDAT", zlib.compress(filtered.tobytes(), level=6)),
            png.chunk(b"IEND", b""),
        ]
    )


def read_png16(content: bytes, name: str = "map") -> np.ndarray:
    """Read a map that `png16_bytes` wrote; `name` is the file's name in errors.

    Returns:
        float32, (H, W, 3), in [0, 2].

    Raises:
        ImageError: the bytes are truncated, damaged, or were written by another program.
    """
    try:
        chunks = dict(_chunks(content))
        header, compressed = chunks[b"IHDR"], chunks[b"IDAT"]
        width, height = struct.unpack(">II", header[:8])
        if header[8:] != _SIXTEEN_BIT_RGB:
            raise ValueError("not 16-bit RGB")
        filtered = np.frombuffer(zlib.decompress(compressed), np.uint8).reshape(height, 1 + 6 * width)
        if np.any(filtered[:, 0] != _ROW_ABOVE):
            raise ValueError("filtered by another program")
    except (KeyError, ValueError, struct.error, zlib.error) as error:
        raise ImageError(f"{name}: damaged, or not a 16-bit map of rediffuse ({error}): compute it again") from error
    rows = np.cumsum(filtered[:, 1:], axis=0, dtype=np.uint8)  # modulo 256
    levels = rows.view(">u2").reshape(height, width, 3)
    return (levels * PNG16_STEP).astype(np.float32)


def _save(pixels: np.ndarray | Image.Image, codec: str, **options: object) -> bytes:
    if isinstance(pixels, np.ndarray):
        assert pixels.dtype == np.uint8, pixels.dtype
        pixels = Image.fromarray(pixels)
    file = BytesIO()
    pixels.save(file, codec, **options)
    return file.getvalue()


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    if not content.startswith(png.SIGNATURE):
        raise ValueError("not a PNG")
    position, kind = len(png.SIGNATURE), b""
    while kind != b"IEND":
        size, kind = struct.unpack_from(">I4s", content, position)
        data = content[position + 8 : position + 8 + size]
        if content[position + 8 + size : position + 12 + size] != struct.pack(">I", zlib.crc32(kind + data)):
            raise ValueError("checksum")
        yield kind, data
        position += 12 + size
