"""Files that may take much time or memory are decoded in another process, and refused in one line beyond the budget."""

import os
import runpy
import signal
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rediffuse.errors import ConfigError, ImageError
from rediffuse.images import isolation
from rediffuse.images.decode import decode_bytes, pixels_of
from rediffuse.images.headers import MAX_SCANS, is_cheap
from rediffuse.images.limits import Limits
from rediffuse.images.rows import open_image


def encoded(side: int, codec: str, **options: object) -> bytes:
    """A file with random pixels."""
    file = BytesIO()
    pixels = np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, codec, **options)
    return file.getvalue()


def scanned(side: int, num_more: int) -> bytes:
    """A gray progressive JPEG whose last scan is repeated."""
    file = BytesIO()
    Image.new("RGB", (side, side)).save(file, "JPEG", progressive=True)
    content = file.getvalue()
    last = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + last * num_more + b"\xff\xd9"


def test_the_usual_files_are_decoded_in_this_process_and_the_others_are_not() -> None:
    assert is_cheap(encoded(64, "JPEG"))
    assert is_cheap(encoded(64, "JPEG", progressive=True, exif=b"Exif\0\0" + b"x" * 60_000))
    assert is_cheap(encoded(64, "PNG"))
    assert not any(is_cheap(encoded(64, codec)) for codec in ("WEBP", "TIFF", "BMP", "GIF", "AVIF", "JPEG2000"))
    assert not is_cheap(scanned(64, MAX_SCANS))
    png = encoded(8, "PNG")
    assert not is_cheap(png[:16] + struct.pack(">II", 5001, 5000) + png[24:])
    assert not is_cheap(png[:33] + (struct.pack(">I", 0) + b"teXt" + bytes(4)) * 20_000 + png[33:])
    assert not is_cheap(png[:8] + (struct.pack(">I", 0) + b"teXt" + bytes(4)) + png[8:])
    assert not is_cheap(png[:33] + png[8:16] + struct.pack(">II", 9999, 9999) + png[24:])
    jpeg = encoded(8, "JPEG")
    size = jpeg.index(b"\xff\xc0")
    assert not is_cheap(jpeg[:size] + jpeg[size : size + 19] + jpeg[size:])
    assert not is_cheap(jpeg[:2] + b"\xff" + jpeg[2:])
    assert not is_cheap(jpeg[:2] + b"\xff\xfe\x00\x02" * 100 + jpeg[2:])
    for length in range(40):
        assert is_cheap(png[:length]) in (True, False)
        assert is_cheap(jpeg[:length]) in (True, False)


def test_a_file_that_takes_too_long_is_refused_and_the_next_one_is_decoded() -> None:
    with pytest.raises(ImageError, match=r"^slow\.jpg: takes more than 1 s to decode"):
        decode_bytes(scanned(3000, 1000), "slow.jpg", Limits(seconds=1))
    assert decode_bytes(encoded(8, "GIF"), "a.gif").size == (8, 8)


def test_a_file_that_needs_too_much_memory_is_refused_and_the_next_one_is_decoded() -> None:
    content = encoded(2000, "TIFF")  # 16 MB in Pillow
    with pytest.raises(ImageError, match=r"^large\.tif: needs (too much|more than 8 MiB of) memory"):
        decode_bytes(content, "large.tif", Limits(memory=8 << 20))
    assert decode_bytes(content, "large.tif").size == (2000, 2000)


def test_a_process_that_was_killed_is_replaced() -> None:
    content = encoded(8, "WEBP")
    decode_bytes(content, "a.webp")
    waiting = isolation._waiting.get()
    os.kill(waiting.process.pid, signal.SIGKILL)
    waiting.process.wait()
    isolation._waiting.put(waiting)
    assert decode_bytes(content, "a.webp").codec == "WEBP"


def test_a_decoder_that_ends_its_process_is_an_error_of_its_file() -> None:
    worker = isolation._Worker()
    parts = worker.decode(encoded(2000, "TIFF"), "a.tif", Limits(), False)
    next(parts)
    os.kill(worker.process.pid, signal.SIGSEGV)
    with pytest.raises(ImageError, match=r"^a\.tif: damaged: the decoder was ended by it \(SIGSEGV\)"):
        list(parts)
    worker.end()


def test_threads_decode_at_the_same_time_and_processes_end_after_many_files() -> None:
    contents = [encoded(side, "WEBP", lossless=True) for side in range(8, 40)]
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(lambda content: decode_bytes(content, "a").pixels, contents))
    for side, pixels in zip(range(8, 40), images, strict=True):
        expected = np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)
        np.testing.assert_array_equal(pixels, expected)
    assert 1 <= isolation._waiting.qsize() <= 4
    worker = isolation._idle()
    worker.num_files = isolation.MAX_FILES
    isolation._release(worker)
    assert worker.process.poll() is not None


def test_a_forked_process_starts_decoders_of_its_own() -> None:
    content = encoded(8, "WEBP")
    decode_bytes(content, "a.webp")
    if (child := os.fork()) == 0:
        os._exit(0 if isolation._waiting.empty() and decode_bytes(content, "a.webp").codec == "WEBP" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_process_does_not_load_torch_and_leaves_no_decoder_behind(tmp_path: Path) -> None:
    (tmp_path / "a.webp").write_bytes(encoded(8, "WEBP"))
    program = (
        "import sys; from pathlib import Path; from rediffuse.images import decode, isolation, worker\n"
        f"decode.decode(Path({str(tmp_path / 'a.webp')!r}))\n"
        "decoder = isolation._idle(); print(decoder.process.pid); isolation._release(decoder)\n"
        "assert 'torch' not in sys.modules"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    with pytest.raises(ProcessLookupError):
        os.kill(int(finished.stdout), 0)


def test_the_process_imports_only_what_decodes() -> None:
    program = "import sys; import rediffuse.images.worker; print({'torch', 'numpy', 'fsspec'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "set()\n"


def test_sixteen_bits_of_gray_are_divided_by_257_and_rounded() -> None:
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    for image in (Image.fromarray(levels), Image.fromarray(levels.astype(np.int32))):
        np.testing.assert_array_equal(pixels_of(image, "a")[..., 0], np.rint(levels / 257))


def test_damaged_files_are_decoded_or_refused_in_one_line() -> None:
    script = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "decoding.py"))
    outcomes = [script["outcome_of"](content) for _, content in script["damaged"](400, seed=1)]
    assert {"decoded", "refused"} <= set(outcomes)


def test_heif_without_its_package_is_refused_with_the_name_of_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"^a\.heic: is a HEIF image: install rediffuse\[heif\]"):
        open_image(b"\0\0\0\x1cftypheic", "a.heic")


def test_the_budget_grows_with_the_pixels_that_are_allowed() -> None:
    assert Limits.for_pixels(Limits.max_pixels) == Limits()
    assert Limits.for_pixels(100) == Limits(max_pixels=100)
    assert Limits.for_pixels(200_000_000) == Limits(max_pixels=200_000_000, seconds=10, memory=1 << 30)
    with pytest.raises(ConfigError, match="max_pixels=0: at least 1"):
        Limits.for_pixels(0)
