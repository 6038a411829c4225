"""Open an image file with Pillow, and read its pixels as rows of RGB bytes.

Only what decoding needs is imported, and no numpy: the processes of `isolation` start in half of the time.
"""

import importlib
import threading
import warnings
from collections.abc import Generator
from io import BytesIO
from typing import cast

from PIL import ExifTags, Image, ImageFile

from rediffuse.errors import ImageError
from rediffuse.images import png
from rediffuse.images.headers import Stored
from rediffuse.images.limits import Limits

_PLUGINS = {
    "JPEG": "Jpeg",
    "PNG": "Png",
    "WEBP": "WebP",
    "TIFF": "Tiff",
    "BMP": "Bmp",
    "GIF": "Gif",
    "AVIF": "Avif",
    "JPEG2000": "Jpeg2K",
}
"""The modules of Pillow that read each format, without `ImagePlugin`; they are imported as they are needed."""
CODECS = (*_PLUGINS, "HEIF")
"""The formats that are read, by Pillow's names; HEIF needs the package pillow-heif. No others: some of Pillow's readers
start programs (EPS: Ghostscript), others are slow (PPM as text)."""

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_SIDEWAYS = (5, 6, 7, 8)
"""The EXIF orientations that swap width and height."""
_ROWS = 128
"""Rows that are converted to RGB together, so that no second copy of all pixels is needed."""
_DEEP_GRAY = ("I", "I;16", "I;16B", "I;16L")


def decode_rows(
    content: bytes, name: str, limits: Limits, *, first_frame: bool
) -> Generator[Stored | bytes, None, None]:
    """Decode in this process: yield what the header says, then the pixels as stored, some rows at a time.

    Args:
        content: the bytes of the file.
        name: the file's name in errors.
        limits: the limits on its size; the budget is not checked here.
        first_frame: decode the first of several frames or pages; otherwise they are an error.

    Yields:
        A `Stored`, then the RGB bytes of (n, W) pixels.

    Raises:
        ImageError: as `decode.decode`.
    """
    with pillow_silenced:
        yield from image_rows(open_image(content, name), name, limits, first_frame=first_frame)


def image_rows(
    image: Image.Image, name: str, limits: Limits, *, first_frame: bool
) -> Generator[Stored | bytes, None, None]:
    """What `decode_rows` yields, from an opened image. Use it within `pillow_silenced`."""
    check_size(image.size, name, limits)
    if not first_frame:
        _require_one_frame(image, name)
    codec = "JPEG" if image.format == "MPO" else str(image.format)
    width, height = image.size
    try:
        image.load()
    except Exception as error:  # as in open_image
        raise _broken(name, image.format, error) from error
    yield Stored(codec=codec, size=(width, height), orientation=_orientation(image))
    for top in range(0, height, _ROWS):
        yield _rgb(image.crop((0, top, width, min(top + _ROWS, height))), name).tobytes()


def open_image(content: bytes, name: str) -> ImageFile.ImageFile:
    """Read the header of an image file's bytes with the first codec that accepts it; `name` is for the error.

    `Image.open` would do the same, but checks the size against a limit that is global to the process; `Limits` is an
    argument. Call it, and use its result, within `pillow_silenced`.

    Raises:
        ImageError: the bytes are no image in one of `CODECS`.
    """
    if not content:
        raise ImageError(f"{name}: is empty (0 bytes): copy or download it again")
    if content[4:8] == b"ftyp" and content[8:12] in _HEIF_BRANDS:
        _register_heif(name)
    for codec in CODECS:
        if codec in _PLUGINS:
            importlib.import_module(f"PIL.{_PLUGINS[codec]}ImagePlugin")
        elif codec not in Image.OPEN:
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


def open_for_metadata(content: bytes, name: str) -> ImageFile.ImageFile:
    """As `open_image`, for the metadata alone: Pillow decodes a PNG to read what is stored behind its pixels.

    The image of a PNG has all of its metadata, but only one pixel.
    """
    return open_image(png.with_one_pixel(content) if content.startswith(png.SIGNATURE) else content, name)


def check_size(size: tuple[int, int], name: str, limits: Limits) -> None:
    """Raise ImageError if an image of `size` (width, height) is too small, too large or too long for `limits`."""
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


def _register_heif(name: str) -> None:
    try:
        import pillow_heif
    except ImportError:
        raise ImageError(f"{name}: is a HEIF image: install rediffuse[heif], or convert it to PNG") from None
    pillow_heif.register_heif_opener()


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


def upright_size(content: bytes, name: str) -> tuple[int, int]:
    """(width, height) of an image file after it is turned upright, without decoding it. Arguments: see `open_image`."""
    with pillow_silenced:
        width, height = open_image(content, name).size
        is_sideways = _orientation(open_for_metadata(content, name)) in _SIDEWAYS
    return (height, width) if is_sideways else (width, height)


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # unreadable EXIF data: the orientation is unknown, so the pixels are used as stored
        return 1


def _rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "F":
        raise ImageError(f"{name}: floating-point pixels have no standard value for white: save it with 8 or 16 bits")
    if image.mode in _DEEP_GRAY:
        image = _eight_bit(image.convert("I"), name)
    if "transparency" in image.info:  # alpha is dropped anyway; with this entry Pillow would warn
        image = image.copy()
        del image.info["transparency"]
    try:
        return image.convert("RGB")
    except ValueError as error:
        raise ImageError(
            f"{name}: pixels of mode {image.mode} have no conversion to RGB: save it as RGB PNG"
        ) from error


def _eight_bit(image: Image.Image, name: str) -> Image.Image:
    low, high = cast(tuple[int, int], image.getextrema())  # of one channel
    if low < 0 or high > 65535:
        raise ImageError(f"{name}: gray levels from {low} to {high}, allowed are 0 to 65535: save it with 16 bits")
    # Rounded, since Pillow cuts off the fraction: 65535 = 257 * 255. Its own conversion would clip at 255.
    return image.point(lambda level: level * (1 / 257) + 0.5).convert("L")


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
