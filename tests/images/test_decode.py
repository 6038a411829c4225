"""Real files of every common format are decoded to 8-bit RGB, or refused with an error of one line."""

import hashlib
import json
import os
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image

import golden_values
from rediffuse.errors import ImageError
from rediffuse.images.crop import center_crop
from rediffuse.images.decode import Limits, decode, decode_bytes, pixels_of, printable

pillow_heif.register_heif_opener()  # to write such files; `decode` registers it itself
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


@pytest.fixture
def corners() -> Image.Image:
    """16 wide, 24 high: red, green in the upper corners, blue, white in the lower ones."""
    quarters = np.array([[RED, GREEN], [BLUE, WHITE]], np.uint8)
    return Image.fromarray(quarters.repeat(12, axis=0).repeat(8, axis=1))


def refusal(path: Path, *limits: Limits) -> str:
    """The error of `decode` for a file that it refuses: one line that begins with the file."""
    with pytest.raises(ImageError) as caught:
        decode(path, *limits)
    message = str(caught.value)
    assert message.startswith(f"{printable(path)}: ")
    assert "\n" not in message
    return message


def corner_colours(pixels: np.ndarray) -> list[tuple[int, ...]]:
    return [tuple(map(int, pixels[row, column])) for row in (0, -1) for column in (0, -1)]


@pytest.mark.parametrize("name", ["photo.jpg", "wide.png", "gray.png", "rgba.png", "palette.gif", "small.jpg"])
def test_golden_files_give_the_originals_x_0(name: str) -> None:
    meta, golden = golden_values.load("dire_end_to_end")
    pixels = center_crop(decode_bytes(golden[f"file_{name}"].numpy().tobytes(), name).pixels, 32)
    x_0 = pixels.transpose(2, 0, 1).astype(np.float32) / 127.5 - 1
    assert np.array_equal(x_0, golden["x_0"][meta["files"].index(name)].numpy())


@pytest.mark.parametrize(
    ("codec", "suffix", "options"),
    [
        ("JPEG", "jpg", {"quality": 95}),
        ("PNG", "png", {}),
        ("WEBP", "webp", {"quality": 95}),
        ("TIFF", "tif", {"compression": "tiff_lzw"}),
        ("BMP", "bmp", {}),
        ("GIF", "gif", {}),
        ("AVIF", "avif", {"quality": 95}),
        ("JPEG2000", "jp2", {}),
        ("HEIF", "heic", {"quality": 95}),
    ],
)
def test_every_codec_is_read_and_its_truncation_is_refused(
    tmp_path: Path, corners: Image.Image, codec: str, suffix: str, options: dict
) -> None:
    whole, half = tmp_path / f"whole.{suffix}", tmp_path / f"half.{suffix}"
    corners.save(whole, codec, **options)
    image = decode(whole)
    assert (image.codec, image.size) == (codec, (16, 24))
    assert image.sha256 == hashlib.sha256(whole.read_bytes()).hexdigest()
    assert image.pixels.dtype == np.uint8
    assert np.abs(np.array(corner_colours(image.pixels)) - [RED, GREEN, BLUE, WHITE]).max() < 6
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert "truncated" in refusal(half)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        *(("1", "png"), ("L", "tif"), ("LA", "png"), ("P", "gif"), ("RGBA", "webp")),
        *(("CMYK", "tif"), ("CMYK", "jpg"), ("YCbCr", "tif"), ("RGBX", "tif")),
    ],
)
def test_every_colour_mode_becomes_rgb(tmp_path: Path, corners: Image.Image, mode: str, suffix: str) -> None:
    blurred = corners.resize((64, 96)).convert(mode)
    blurred.save(tmp_path / f"image.{suffix}", quality=100)
    pixels = decode(tmp_path / f"image.{suffix}").pixels
    assert np.abs(pixels.astype(int) - np.asarray(blurred.convert("RGB"))).mean() < 3


def test_cielab_becomes_rgb(tmp_path: Path) -> None:
    Image.new("LAB", (16, 16), (255, 128, 128)).save(tmp_path / "white.tif")
    assert decode(tmp_path / "white.tif").pixels.min() >= 250


def test_alpha_is_dropped_and_the_colour_below_it_stays(tmp_path: Path) -> None:
    Image.new("RGBA", (16, 16), (10, 20, 30, 0)).save(tmp_path / "clear.png")
    assert np.all(decode(tmp_path / "clear.png").pixels == (10, 20, 30))


def test_transparent_palette_does_not_complain(tmp_path: Path, corners: Image.Image) -> None:
    corners.convert("P").save(tmp_path / "palette.png", transparency=bytes([0, 128, 255]))
    assert decode(tmp_path / "palette.png").pixels.shape == (24, 16, 3)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_gray_is_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)
    path = tmp_path / f"deep.{suffix}"
    Image.fromarray(np.tile(ramp, (16, 1))).save(path)
    assert np.array_equal(decode(path, Limits(max_aspect=16)).pixels[0, :, 0], np.arange(256))


def test_sixteen_bit_colour_is_read(tmp_path: Path) -> None:
    rows = (b"\0" + struct.pack(">3H", 65535, 0x8000, 0) * 16) * 16
    (tmp_path / "deep.png").write_bytes(png_of(16, 16, rows, bit_depth=16))
    assert np.all(decode(tmp_path / "deep.png").pixels == (255, 128, 0))


@pytest.mark.parametrize(
    ("pixels", "said"),
    [(np.full((16, 16), 0.5, np.float32), "floating-point"), (np.full((16, 16), 70000, np.int32), "from 70000")],
)
def test_pixels_without_a_standard_white_are_refused(tmp_path: Path, pixels: np.ndarray, said: str) -> None:
    Image.fromarray(pixels).save(tmp_path / "data.tif")
    assert said in refusal(tmp_path / "data.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, corners: Image.Image, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    corners.save(tmp_path / "turned.jpg", exif=exif, quality=100, subsampling=0)
    image = decode(tmp_path / "turned.jpg")
    # EXIF 2.32, tag 274: where the stored upper left, upper right, lower left, lower right corners are shown
    shown = {1: "rgbw", 2: "grwb", 3: "wbgr", 4: "bwrg", 5: "rbgw", 6: "brwg", 7: "wgbr", 8: "gwrb"}[orientation]
    colours = dict(zip("rgbw", (RED, GREEN, BLUE, WHITE), strict=True))
    assert np.abs(np.array(corner_colours(image.pixels)) - [colours[c] for c in shown]).max() < 4
    assert image.size == (16, 24)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0II*\0garbage", b"Exif\0\0nonsense", b"Exif\0\0" + b"II*\0\x08\0\0\0\xff\xff"]
)
def test_corrupt_metadata_do_not_refuse_good_pixels(tmp_path: Path, corners: Image.Image, exif: bytes) -> None:
    corners.save(tmp_path / "odd.jpg", exif=exif)
    assert decode(tmp_path / "odd.jpg").pixels.shape == (24, 16, 3)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_animations_are_refused_with_their_number_of_frames(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, GREEN, BLUE)]
    frames[0].save(tmp_path / f"moving.{suffix}", save_all=True, append_images=frames[1:])
    assert "animated (3 frames)" in refusal(tmp_path / f"moving.{suffix}")


def test_pages_are_refused_with_their_number(tmp_path: Path, corners: Image.Image) -> None:
    corners.save(tmp_path / "scan.tif", save_all=True, append_images=[corners])
    assert "2 pages" in refusal(tmp_path / "scan.tif")


def test_phone_picture_with_a_companion_is_a_jpeg(tmp_path: Path, corners: Image.Image) -> None:
    corners.save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[corners.rotate(180)], quality=100)
    image = decode(tmp_path / "phone.jpg")
    assert image.codec == "JPEG"
    assert np.abs(np.array(corner_colours(image.pixels)) - [RED, GREEN, BLUE, WHITE]).max() < 4


def test_what_is_no_image_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("hello, world")
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    assert "is empty" in refusal(tmp_path / "empty.png")
    assert "it begins with b'hello, w'" in refusal(tmp_path / "text.png")
    assert "is a folder" in refusal(tmp_path / "folder.png")
    assert "not a regular file" in refusal(tmp_path / "pipe.png")
    assert "No such file" in refusal(tmp_path / "missing.png")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission_is_said(tmp_path: Path, corners: Image.Image) -> None:
    corners.save(tmp_path / "secret.png")
    (tmp_path / "secret.png").chmod(0)
    assert "Permission denied" in refusal(tmp_path / "secret.png")


def test_postscript_starts_no_program(tmp_path: Path) -> None:
    (tmp_path / "drawing.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n")
    assert "not an image in a supported format" in refusal(tmp_path / "drawing.png")


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ((1, 1), "1x1 pixels, at least 8"),
        ((500, 7), "500x7 pixels, at least 8"),
        ((40_000, 40_000), "40000x40000 pixels, at most 100000000"),
        ((8, 801), "8x801 pixels, one side may be at most 100 times the other"),
    ],
)
def test_size_outside_the_limits_is_refused_by_the_header_alone(
    tmp_path: Path, size: tuple[int, int], said: str
) -> None:
    (tmp_path / "sized.png").write_bytes(png_of(*size, b""))
    assert said in refusal(tmp_path / "sized.png")


def test_limits_are_arguments(tmp_path: Path, corners: Image.Image) -> None:
    corners.save(tmp_path / "corners.png")
    assert "at most 100 in total" in refusal(tmp_path / "corners.png", Limits(max_pixels=100))
    assert "at least 17" in refusal(tmp_path / "corners.png", Limits(min_side=17))
    assert "bytes, at most 50" in refusal(tmp_path / "corners.png", Limits(max_bytes=50))


def test_pillows_global_limit_does_not_matter(
    tmp_path: Path, corners: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    corners.save(tmp_path / "corners.png")
    assert np.array_equal(decode(tmp_path / "corners.png").pixels, np.asarray(corners))


def test_threads_leave_the_filters_of_warnings_as_they_were(tmp_path: Path, corners: Image.Image) -> None:
    corners.save(tmp_path / "odd.jpg", exif=b"Exif\0\0II*\0garbage")
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(decode, [tmp_path / "odd.jpg"] * 200))
    assert len({image.pixels.tobytes() for image in images}) == 1
    assert list(warnings.filters) == before


def test_name_that_is_not_unicode_is_printable(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path / "caf") + b"\xe9\n.png"))
    message = refusal(path)
    assert "caf\\udce9\\n.png" in message
    json.dumps(message).encode("utf-8")


def test_photographs_decode(clothing: Path) -> None:
    for path in sorted((clothing / "photos").iterdir())[:5]:
        assert min(decode(path).pixels.shape[:2]) > 64


def png_of(width: int, height: int, rows: bytes, bit_depth: int = 8) -> bytes:
    header = struct.pack(">II5B", width, height, bit_depth, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def test_a_pillow_image_gives_the_pixels_of_its_file_and_stays_as_it_is(tmp_path: Path) -> None:
    palette = Image.new("P", (16, 24), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.save(tmp_path / "palette.png", transparency=b"\x00\x80")
    image = Image.open(tmp_path / "palette.png")
    assert np.array_equal(pixels_of(image, "image 0"), decode(tmp_path / "palette.png").pixels)
    assert (image.mode, image.info["transparency"]) == ("P", b"\x00\x80")


def test_a_pillow_image_is_turned_upright_and_refused_as_its_file_would_be(
    corners: Image.Image, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    corners.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as image:
        turned = pixels_of(image, "image 0")
    assert np.array_equal(turned, decode(tmp_path / "turned.png").pixels)
    assert turned.shape == (16, 24, 3)
    corners.save(tmp_path / "moves.gif", save_all=True, append_images=[corners.rotate(180)])
    for path, line in ((tmp_path / "moves.gif", "image 3: is animated"), (tmp_path / "cut.png", "image 3: damaged")):
        (tmp_path / "cut.png").write_bytes((tmp_path / "turned.png").read_bytes()[:-40])
        with Image.open(path) as image, pytest.raises(ImageError, match=line):
            pixels_of(image, "image 3")


def test_one_lazy_pillow_image_may_be_given_to_many_threads(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    image = Image.open(tmp_path / "noise.png")
    with ThreadPoolExecutor(4) as pool:
        for pixels in pool.map(lambda _: pixels_of(image, "image"), range(8)):
            assert np.array_equal(pixels, noise)
