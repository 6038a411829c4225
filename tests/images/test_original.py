"""What is shown of an image beside its reconstruction."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from rediffuse.images.facts import metadata_of
from rediffuse.images.original import LONGEST, original_of

HOSTILE = "<script>alert(1)</script>\x1b[2J\u202e"


def png(texts: dict[str, str]) -> bytes:
    file, info = BytesIO(), PngImagePlugin.PngInfo()
    for key, value in texts.items():
        info.add_text(key, value)
    Image.new("RGB", (8, 8)).save(file, "PNG", pnginfo=info)
    return file.getvalue()


@pytest.mark.parametrize(("height", "width"), [(3000, 1500), (30, 900)])
def test_a_large_image_is_reduced_and_keeps_its_size_in_words(height: int, width: int) -> None:
    original = original_of(np.full((height, width, 3), 200, np.uint8))
    assert original.size == (width, height)
    assert max(original.pixels.shape) == LONGEST
    assert original.pixels.min() == 200
    assert (original.facts, original.num_bytes, original.metadata) == (None, None, {})


def test_a_small_image_is_shown_as_it_is() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, LONGEST, 3), np.uint8)
    assert np.array_equal(original_of(pixels).pixels, pixels)


def test_facts_and_metadata_are_those_of_the_file() -> None:
    content = png({"parameters": "a cat, 30 steps"})
    original = original_of(np.zeros((8, 8, 3), np.uint8), content, "a.png")
    assert original.facts is not None
    assert (original.facts.codec, original.num_bytes) == ("PNG", len(content))
    assert original.metadata == {"parameters": "a cat, 30 steps"}


def test_exif_and_comments_are_metadata() -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0131] = "maker", "editor 1.0"
    file = BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", exif=exif, comment=b"made\nby hand")
    assert metadata_of(file.getvalue(), "a") == {
        "Make": "maker",
        "Software": "editor 1.0",
        "comment": "made by hand",
    }


def test_metadata_are_one_line_of_printable_characters_and_bounded() -> None:
    content = png({"Title": HOSTILE} | {f"k{number}": "x" * 5000 for number in range(50)})
    stated = metadata_of(content, "a")
    assert len(stated) == 20
    assert stated["k0"] == "x" * 300
    assert all(value.isprintable() for value in stated.values())


def test_damaged_exif_states_nothing() -> None:
    file = BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + b"\xff" * 20)
    assert metadata_of(file.getvalue(), "a") == {}
