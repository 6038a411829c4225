"""Decode one image file to upright 8-bit RGB pixels, or raise an error of one line.

Every file has a budget of CPU time and memory (`Limits`). Where a look at the header shows that a JPEG or PNG stays far
below it, the file is decoded in this process. All others are decoded in a process that the system stops at the budget
(see `isolation`).
"""

import contextlib
import hashlib
import threading
import warnings
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageFile

from rediffuse.errors import ImageError
from rediffuse.images.headers import Stored, is_cheap
from rediffuse.images.isolation import decode_isolated
from rediffuse.images.limits import Limits
from rediffuse.images.stored import StoredFile

CODECS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "JPEG2000", "HEIF")
"""The formats that are read, by Pillow's names; HEIF needs the package pillow-heif. No others: some of Pillow's readers
start programs (EPS: Ghostscript), others are slow (PPM as text)."""

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_ROWS = 128
"""Rows that are converted to RGB together, so that no second copy of all pixels is needed."""
_DEEP_GRAY = ("I", "I;16", "I;16B", "I;16L")
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
_SIDEWAYS = (5, 6, 7, 8)


@dataclass(frozen=True, kw_only=True)
class DecodedImage:
    """The pixels of one file and what is known of the file."""

    pixels: np.ndarray
    """uint8, (H, W, 3), upright RGB."""
    codec: str
    """One of `CODECS`, determined from the bytes and not from the suffix."""
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


def decode_rows(
    content: bytes, name: str, limits: Limits, *, first_frame: bool
) -> Generator[Stored | np.ndarray, None, None]:
    """Decode in this process: yield what the header says, then the pixels as stored, some rows at a time.

    Args:
        content: the bytes of the file.
        name: the file's name in errors.
        limits: the limits on its size; the budget is not checked here.
        first_frame: decode the first of several frames or pages; otherwise they are an error.

    Yields:
        A `Stored`, then uint8 (n, W, 3) arrays.

    Raises:
        ImageError: as `decode`.
    """
    with pillow_silenced:
        image = open_image(content, name)
        _check_size(image.size, name, limits)
        if not first_frame:
            _require_one_frame(image, name)
        codec = "JPEG" if image.format == "MPO" else str(image.format)
        size = image.size
        _load(image, name)
        yield Stored(codec=codec, size=size, orientation=_orientation(image))
        yield from _rows(image, name)


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
        _check_size((image.shape[1], image.shape[0]), name, limits)
        return image
    _check_size(image.size, name, limits)
    with pillow_silenced:
        with _loading:
            _require_one_frame(image, name)
            _load(image, name)
        return _upright(np.concatenate(list(_rows(image, name))), _orientation(image))


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


def open_image(content: bytes, name: str) -> ImageFile.ImageFile:
    """Read the header of an image file's bytes with the first codec that accepts it; `name` is for the error.

    `Image.open` would do the same, but checks the size against a limit that is global to the process; `Limits` is an
    argument. Call it, and use its result, within `pillow_silenced`.

    Raises:
        ImageError: the bytes are no image in one of `CODECS`.
    """
    if not content:
        raise ImageError(f"{name}: is empty (0 bytes): copy or download it again")
    Image.init()
    if content[4:8] == b"ftyp" and content[8:12] in _HEIF_BRANDS:
        _register_heif(name)
    for codec in CODECS:
        if codec not in Image.OPEN:
            continue
        factory, accept = Image.OPEN[codec]
        if accept is not None and accept(content[:16]) is True:
            try:
                return factory(BytesIO(content), "")
            except Exception as error:  # on bytes of another format Pillow's parsers can raise almost any exception
                raise _broken(name, codec, error) from error
    raise ImageError(
        f"{name}: is not an image in a supported format ({', '.join(CODECS)}); it begins with {content[:8]!r}: "
        "convert it to PNG"
    )


def _check_size(size: tuple[int, int], name: str, limits: Limits) -> None:
    width, height = size
    short, long = sorted(size)
    if short < limits.min_side:
        raise ImageError(f"{name}: {width}x{height} pixels, at least {limits.min_side} on each side are needed")
    if width * height > limits.max_pixels:
        raise ImageError(
            f"{name}: {width}x{height} pixels, at most {limits.max_pixels} in total are decoded: save it smaller, "
            "or raise max_pixels"
        )
    if long > limits.max_aspect * short:
        raise ImageError(
            f"{name}: {width}x{height} pixels, one side may be at most {limits.max_aspect} times the other: crop it"
        )


def _decoded(content: bytes, name: str, limits: Limits, *, first_frame: bool) -> tuple[Stored, np.ndarray]:
    """What the header says, and the pixels as stored."""
    decode_within = decode_rows if is_cheap(content) else decode_isolated
    with contextlib.closing(decode_within(content, name, limits, first_frame=first_frame)) as parts:
        stored = next(parts)
        assert isinstance(stored, Stored)
        width, height = stored.size
        pixels, row = np.empty((height, width, 3), np.uint8), 0
        for rows in parts:
            assert isinstance(rows, np.ndarray)
            pixels[row : row + len(rows)] = rows
            row += len(rows)
    return stored, pixels


def _register_heif(name: str) -> None:
    try:
        import pillow_heif
    except ImportError:
        raise ImageError(f"{name}: is a HEIF image: install rediffuse[heif], or convert it to PNG") from None
    pillow_heif.register_heif_opener()


def _load(image: Image.Image, name: str) -> None:
    try:
        image.load()
    except Exception as error:  # as in open_image
        raise _broken(name, image.format, error) from error


def _require_one_frame(image: Image.Image, name: str) -> None:
    try:
        num_frames = getattr(image, "n_frames", 1)
    except Exception as error:  # as in open_image
        raise _broken(name, image.format, error) from error
    if num_frames == 1 or image.format == "MPO":
        return
    if image.format == "TIFF":
        raise ImageError(f"{name}: holds {num_frames} pages: save the page to judge as a file of its own")
    raise ImageError(f"{name}: is animated ({num_frames} frames): save the frame to judge as a file of its own")


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) of an image of `open_image` once it is turned upright, without decoding it."""
    width, height = image.size
    return (height, width) if _orientation(image) in _SIDEWAYS else (width, height)


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    return np.ascontiguousarray(_UPRIGHT[orientation](pixels)) if orientation in _UPRIGHT else pixels


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # unreadable EXIF data: the orientation is unknown, so the pixels are used as stored
        return 1


def _rows(image: Image.Image, name: str) -> Generator[np.ndarray, None, None]:
    """The pixels of a loaded image as uint8 (n, W, 3) RGB."""
    width, height = image.size
    for top in range(0, height, _ROWS):
        yield _rgb(image.crop((0, top, width, min(top + _ROWS, height))), name)


def _rgb(image: Image.Image, name: str) -> np.ndarray:
    if image.mode == "F":
        raise ImageError(f"{name}: floating-point pixels have no standard value for white: save it with 8 or 16 bits")
    if image.mode in _DEEP_GRAY:
        return _deep_gray(np.asarray(image), name)
    if "transparency" in image.info:  # alpha is dropped anyway; with this entry Pillow would warn
        image = image.copy()
        del image.info["transparency"]
    try:
        return np.asarray(image.convert("RGB"))
    except ValueError as error:
        raise ImageError(
            f"{name}: pixels of mode {image.mode} have no conversion to RGB: save it as RGB PNG"
        ) from error


def _deep_gray(levels: np.ndarray, name: str) -> np.ndarray:
    low, high = int(levels.min()), int(levels.max())
    if low < 0 or high > 65535:
        raise ImageError(f"{name}: gray levels from {low} to {high}, allowed are 0 to 65535: save it with 16 bits")
    gray = np.rint(levels / 257).astype(np.uint8)  # 65535 = 257 * 255; Pillow's own conversion clips at 255
    return np.repeat(gray[:, :, None], 3, axis=2)


def _broken(name: str, codec: str | None, error: Exception) -> ImageError:
    if isinstance(error, MemoryError):
        return ImageError(f"{name}: needs too much memory to be decoded: save it smaller")
    reason = " ".join(str(error).split()) or type(error).__name__
    return ImageError(f"{name}: damaged or truncated {codec} file ({reason}): copy or download it again")


class _PillowSilenced:
    """A context in which Pillow's warnings are ignored; several threads may be in it at the same time.

    Pillow warns about unusual metadata, which does not affect the pixels; where warnings are errors, a good image would
    be refused. With `warnings.catch_warnings` alone two threads would restore each other's filters, so here the first
    thread sets the filters and the last one restores them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_inside = 0

    def __enter__(self) -> None:
        with self._lock:
            if self._num_inside == 0:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._num_inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._num_inside -= 1
            if self._num_inside == 0:
                self._filters.__exit__(None, None, None)


pillow_silenced = _PillowSilenced()
_loading = threading.Lock()
"""A Pillow image reads its file when its pixels are first asked for; one image may be given to two threads."""
