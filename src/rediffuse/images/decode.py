"""Decode one image file to upright 8-bit RGB pixels, or raise an error of one line.

Every file has a budget of CPU time and memory (`Limits`). Where a look at the header shows that a JPEG or PNG stays far
below it, the file is decoded in this process. All others are decoded in a process that the system stops at the budget
(see `isolation`).
"""

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image

from rediffuse.errors import ImageError
from rediffuse.images.headers import Stored, is_cheap
from rediffuse.images.isolation import decode_isolated
from rediffuse.images.limits import Limits
from rediffuse.images.rows import check_size, decode_rows, image_rows, pillow_silenced
from rediffuse.images.stored import StoredFile

_UPRIGHT: Mapping[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels[::-1].swapaxes(0, 1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels[:, ::-1].swapaxes(0, 1),
}
"""The views (H, W, 3) that turn the pixels as stored upright, by EXIF orientation."""


@dataclass(frozen=True, kw_only=True)
class DecodedImage:
    """The pixels of one file and what is known of the file."""

    pixels: np.ndarray
    """uint8, (H, W, 3), upright RGB."""
    codec: str
    """One of `rows.CODECS`, determined from the bytes and not from the suffix."""
    size: tuple[int, int]
    """(width, height) as stored, before the EXIF orientation is applied."""
    sha256: str
    """SHA-256 of the file's bytes, in hex."""


def decode(path: Path | StoredFile, limits: Limits = Limits()) -> DecodedImage:
    """Read one image file.

    The EXIF orientation is applied. Gray, palette, CMYK and 1-bit images become RGB. Alpha is dropped without blending,
    as in guided-diffusion. 16-bit gray is scaled by 1/257; of 16-bit colour Pillow reads the upper 8 bits. Of a file
    with several views of one picture (MPO, from phones) the main view is read.

    Raises:
        ImageError: the file is missing, empty, truncated, no image, animated, has several pages, has floating-point
            or 32-bit pixels, or is outside `limits`, or its decoding needs more than their budget. The message names
            the file, the problem and what to do.
    """
    return decode_bytes(read_file(path, limits), printable(path), limits)


def decode_bytes(content: bytes, name: str, limits: Limits = Limits()) -> DecodedImage:
    """Decode the bytes of an image file as `decode` does; `name` is the file's name in errors."""
    stored, pixels = _decoded(content, name, limits, first_frame=False)
    return DecodedImage(
        pixels=_upright(pixels, stored.orientation),
        codec=stored.codec,
        size=stored.size,
        sha256=hashlib.sha256(content).hexdigest(),
    )


def first_frame(path: Path | StoredFile, limits: Limits = Limits()) -> np.ndarray:
    """The pixels of a file as stored, without the EXIF orientation, and of several frames or pages the first.

    Returns:
        uint8, (H, W, 3), RGB.

    Raises:
        ImageError: as `decode`, but for several frames or pages.
    """
    return _decoded(read_file(path, limits), printable(path), limits, first_frame=True)[1]


def pixels_of(image: Image.Image | np.ndarray, name: str, limits: Limits = Limits()) -> np.ndarray:
    """The pixels of an image in memory, as `decode` gives those of a file.

    Args:
        image: a Pillow image, of any mode that `decode` supports; or an RGB array, uint8 (H, W, 3).
        name: the image's name in errors.

    Returns:
        uint8, (H, W, 3), upright RGB.

    Raises:
        ImageError: an array has another type or shape, or `decode` would refuse the Pillow image as a file.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ImageError(f"{name}: given an array {image.shape} {image.dtype}; (H, W, 3) uint8 is needed")
        check_size((image.shape[1], image.shape[0]), name, limits)
        return image
    with pillow_silenced:
        parts = image_rows(image, name, limits, first_frame=False)
        with _loading:
            begin = next(parts)
        stored, pixels = _gathered(chain([begin], parts))
    return _upright(pixels, stored.orientation)


def printable(path: Path | StoredFile | str) -> str:
    """`path` for a message or a table: one line of valid Unicode, also if the file's name is not."""
    if str(path).isprintable():
        return str(path)
    text = str(path).encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def read_file(path: Path | StoredFile, limits: Limits = Limits()) -> bytes:
    """The bytes of a file, for `decode_bytes`.

    Raises:
        ImageError: it cannot be read, is no regular file, or is larger than `limits` allow.
    """
    name = printable(path)
    if isinstance(path, StoredFile):
        return path.read(limits.max_bytes, name)
    try:
        if path.is_dir():
            raise ImageError(f"{name}: is a folder, not an image file")
        num_bytes = path.stat().st_size
        if not path.is_file():  # reading a pipe or a device might never end
            raise ImageError(f"{name}: is not a regular file: copy its content to one")
        if num_bytes > limits.max_bytes:
            raise ImageError(f"{name}: {num_bytes} bytes, at most {limits.max_bytes} are read: save it smaller")
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"{name}: cannot be read: {error.strerror or error}") from error


def _decoded(content: bytes, name: str, limits: Limits, *, first_frame: bool) -> tuple[Stored, np.ndarray]:
    """What the header says, and the pixels as stored."""
    decode_within = decode_rows if is_cheap(content) else decode_isolated
    with contextlib.closing(decode_within(content, name, limits, first_frame=first_frame)) as parts:
        return _gathered(parts)


def _gathered(parts: Iterator[Stored | bytes]) -> tuple[Stored, np.ndarray]:
    """What `decode_rows` yields, with the pixels as one array."""
    stored = next(parts)
    assert isinstance(stored, Stored)
    width, height = stored.size
    pixels, first = np.empty((height, width, 3), np.uint8), 0
    flat = pixels.reshape(-1)
    for rows in parts:
        assert isinstance(rows, bytes)
        flat[first : first + len(rows)] = np.frombuffer(rows, np.uint8)
        first += len(rows)
    return stored, pixels


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    return np.ascontiguousarray(_UPRIGHT[orientation](pixels)) if orientation in _UPRIGHT else pixels


_loading = threading.Lock()
"""A Pillow image reads its file when its pixels are first asked for; one image may be given to two threads."""
