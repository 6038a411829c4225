"""What a file says apart from its picture, of files that are made here."""

import zlib
from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from rediffuse.errors import ImageError
from rediffuse.images import degrade
from rediffuse.images.decode import decode_bytes
from rediffuse.images.encode import png_bytes
from rediffuse.images.facts import FileFacts, block_grid, facts_of, metadata_of
from rediffuse.images.rows import upright_size

Facts = Callable[..., FileFacts]


@pytest.fixture
def photo() -> np.ndarray:
    """A smooth picture, 96 by 128, with some grain."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(40, 216, (6, 8, 3), np.uint8)).resize((128, 96), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(coarse) + rng.normal(0, 3, (96, 128, 3)), 0, 255).astype(np.uint8)


@pytest.fixture
def facts(photo: np.ndarray) -> Facts:
    """The facts of the photo, saved with Pillow's options."""

    def made(codec: str, **options: object) -> FileFacts:
        file = BytesIO()
        Image.fromarray(photo).save(file, codec, **options)
        return facts_of(file.getvalue(), "photo")

    return made


def chunk(kind: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4) + kind + content + zlib.crc32(kind + content).to_bytes(4)


def with_text(png: bytes, key: str, value: str) -> bytes:
    """A PNG with another text behind its pixels."""
    return png[:-12] + chunk(b"tEXt", f"{key}\0{value}".encode()) + png[-12:]


@pytest.mark.parametrize("quality", [30, 75, 92, 100])
def test_the_quality_of_a_jpeg_is_read_from_its_tables(facts: Facts, quality: int) -> None:
    assert facts("JPEG", quality=quality).quality == quality


def test_a_jpeg_tells_its_subsampling_its_progression_and_its_comment(facts: Facts) -> None:
    plain = facts("JPEG", subsampling="4:2:0")
    assert (plain.codec, plain.width, plain.height, plain.subsampling) == ("JPEG", 128, 96, "4:2:0")
    assert not plain.progressive
    assert not plain.text
    other = facts("JPEG", subsampling="4:4:4", progressive=True, comment=b"a cat")
    assert (other.subsampling, other.progressive, other.text) == ("4:4:4", True, True)
    assert other.tables == plain.tables
    assert facts("JPEG", quality=60).tables != plain.tables


def test_metadata_are_seen_in_every_format_that_has_them(facts: Facts) -> None:
    exif = Image.Exif()
    exif[0x010F] = "maker"
    for codec in ("JPEG", "PNG", "WEBP"):
        bare = facts(codec)
        assert not any((bare.exif, bare.icc, bare.xmp, bare.text))
        full = facts(codec, exif=exif.tobytes(), icc_profile=b"profile" * 20)
        assert full.exif
        assert full.icc


def test_the_prompt_that_a_generator_writes_into_a_png_is_text(facts: Facts) -> None:
    written = PngImagePlugin.PngInfo()
    written.add_text("parameters", "a cat, 20 steps")
    assert facts("PNG", pnginfo=written).text


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "I;16"])
def test_what_a_png_states_behind_its_pixels_is_read_without_decoding_them(mode: str) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "maker", 6
    file = BytesIO()
    Image.new(mode, (40, 30)).save(file, "PNG", exif=exif.tobytes(), icc_profile=b"profile" * 20)
    whole = with_text(file.getvalue(), "parameters", "a cat")
    start = whole.index(b"IDAT") + 4
    content = whole[:start] + b"!" + whole[start + 1 :]  # no pixel can be decoded
    with pytest.raises(ImageError):
        decode_bytes(content, "a")
    facts = facts_of(content, "a")
    assert facts == facts_of(whole, "a")
    assert (facts.width, facts.height, facts.mode, facts.progressive) == (40, 30, mode, False)
    assert facts.exif
    assert facts.icc
    assert facts.text
    assert metadata_of(content, "a") == {"Make": "maker", "parameters": "a cat"}
    assert upright_size(content, "a") == (30, 40)


def test_an_interlaced_png_is_progressive() -> None:
    plain = png_bytes(np.zeros((8, 8, 3), np.uint8))
    content = plain[:8] + chunk(b"IHDR", plain[16:28] + b"\1") + plain[33:]
    assert [facts_of(one, "a").progressive for one in (plain, content)] == [False, True]


def test_the_text_of_an_animated_png_is_read() -> None:
    frames = [Image.new("RGB", (8, 8), (level, 0, 0)) for level in (0, 100, 200)]
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", "three cats")
    file = BytesIO()
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:], pnginfo=text)
    assert facts_of(file.getvalue(), "a").text
    assert metadata_of(file.getvalue(), "a") == {"parameters": "three cats"}


def test_a_png_that_is_cut_off_behind_its_pixels_states_what_is_left() -> None:
    content = with_text(with_text(png_bytes(np.zeros((8, 8, 3), np.uint8)), "first", "a cat"), "second", "a dog")
    assert metadata_of(content, "a") == {"first": "a cat", "second": "a dog"}
    for end in range(content.index(b"second") - 8, content.index(b"second")):
        assert metadata_of(content[:end], "a") == {"first": "a cat"}


def test_the_file_size_counts_where_the_quality_is_not_stored_alone(facts: Facts) -> None:
    assert facts("JPEG").bytes_per_pixel is None
    assert facts("PNG").bytes_per_pixel is None
    assert facts("WEBP", lossless=True).bytes_per_pixel is None
    low, high = (facts("WEBP", quality=quality).bytes_per_pixel for quality in (20, 90))
    assert low is not None
    assert high is not None
    assert low < high / 2


def test_the_bit_depth_of_a_png_is_that_of_its_header(photo: np.ndarray) -> None:
    file = BytesIO()
    Image.fromarray(photo[..., 0].astype(np.uint16) * 257).save(file, "PNG")
    assert facts_of(file.getvalue(), "deep").bit_depth == 16


def test_bytes_that_are_no_image_are_refused_by_name() -> None:
    with pytest.raises(ImageError, match=r"^words: is not an image"):
        facts_of(b"words", "words")


def test_a_png_that_was_a_jpeg_shows_its_grid_at_any_phase_until_it_is_resampled(photo: np.ndarray) -> None:
    encoded = degrade.jpeg(photo, 60)
    before, after, shifted = block_grid(photo), block_grid(encoded), block_grid(encoded[3:, 5:])
    assert after > 2 * before
    assert shifted > 2 * before
    assert block_grid(degrade.reduce(encoded, 70)) < after / 2


def test_an_image_of_fewer_than_four_blocks_shows_no_grid(photo: np.ndarray) -> None:
    assert block_grid(photo[:31]) == 0
