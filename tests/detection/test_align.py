"""The aligned copy: files that differed by class do no longer, each is a function of its bytes and the seed."""

import csv
import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from labelled_images import as_jpeg, write_class, write_data
from rediffuse.detection.align import INDEX, SETTINGS, Alignment, align, histories_of
from rediffuse.detection.audit import audit, audit_folder
from rediffuse.errors import ConfigError, InputError, StorageError
from rediffuse.files import CLAIM, claim
from rediffuse.images.find import find_images
from rediffuse.images.history import History
from rediffuse.images.limits import Limits


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small PNG files of one class, larger JPEG files of the other one."""
    folder = tmp_path_factory.mktemp("source")
    write_class(folder / "real" / "camera", 0, 60, as_jpeg, width=60, height=48)
    write_class(folder / "generated", 1000, 60, width=40, height=40)
    return folder


@pytest.fixture(scope="module")
def out(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    aligned(source, folder)
    return folder


def aligned(source: Path, out: Path, **options: Any) -> Alignment:
    return align(find_images([source]), out, **{"size": 40, **options})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_files_that_revealed_the_class_do_not_reveal_it_afterwards(source: Path, out: Path) -> None:
    before, after = (audit(audit_folder(folder)) for folder in (source, out))
    assert before.facts is not None
    assert before.facts.files.value > 0.99
    assert after.facts is not None
    assert after.facts.files.low <= 0.5 <= after.facts.files.high
    assert after.differences == ()


def test_folders_stay_and_every_file_is_a_png_without_metadata(source: Path, out: Path) -> None:
    names = [path.relative_to(out) for path in out.rglob("*.png")]
    assert len(names) == 120
    assert {name.parent.as_posix() for name in names} == {"real/camera", "generated"}
    for name in names:
        with Image.open(out / name) as image:
            assert (image.format, image.mode, image.info) == ("PNG", "RGB", {})


def test_the_table_says_what_the_pixels_are(source: Path, out: Path) -> None:
    with (out / INDEX).open(newline="") as table:
        rows = list(csv.DictReader(table))
    assert len(rows) == 120
    assert (out / INDEX).read_bytes().count(b"\r") == 0
    for row in rows[::17]:
        content = hashlib.sha256((source / row["source"]).read_bytes()).hexdigest()
        name = Path(row["source"]).with_suffix("").as_posix()
        assert (row["source_sha256"], row["file"]) == (content, f"{name}-{content[:8]}-{row['draw']}.png")
        top, left, size, short_side, quality = (
            int(row[name]) for name in ("top", "left", "size", "short_side", "quality")
        )
        history = History(
            short_side=short_side,
            filter=row["filter"],
            encoding=row["encoding"],
            quality=quality,
            subsampling=row["subsampling"],
        )
        pixels = np.asarray(Image.open(source / row["source"]).convert("RGB"))[top : top + size, left : left + size]
        assert np.array_equal(np.asarray(Image.open(out / row["file"])), history.apply(pixels))


def test_the_same_seed_gives_the_same_files_and_another_one_others(source: Path, out: Path, tmp_path: Path) -> None:
    aligned(source, tmp_path / "again", workers=1)
    assert contents(tmp_path / "again") == contents(out)
    aligned(source, tmp_path / "other", seed=1)
    assert contents(tmp_path / "other") != contents(out)


def test_a_file_becomes_the_same_pixels_whatever_its_class_and_name(source: Path, out: Path, tmp_path: Path) -> None:
    moved = tmp_path / "source" / "generated" / "moved.jpg"
    moved.parent.mkdir(parents=True)
    shutil.copy(source / "real" / "camera" / "7.jpg", moved)
    [row] = aligned(tmp_path / "source", tmp_path / "out").files
    [original] = (out / "real" / "camera").glob("7-*.png")
    assert (tmp_path / "out" / row.file).read_bytes() == original.read_bytes()


def test_what_is_there_is_not_written_again_and_what_is_missing_is(source: Path, tmp_path: Path) -> None:
    first = aligned(source, tmp_path)
    before = contents(tmp_path)
    missing = tmp_path / first.files[3].file
    missing.unlink()
    (tmp_path / CLAIM).touch()  # of a process that was killed
    (tmp_path / "generated" / ".5.png.0123abcd.png").write_bytes(b"cut short")  # as a killed process leaves it
    second = aligned(source, tmp_path)
    assert (first.num_new, second.num_new) == (120, 1)
    assert contents(tmp_path) == before


def test_more_draws_are_more_files_with_histories_of_their_own(tmp_path: Path) -> None:
    source = write_data(tmp_path / "source", number=4)
    one = aligned(source, tmp_path / "out", size=32)
    three = aligned(source, tmp_path / "out", size=32, draws=3)
    assert (len(one.files), len(three.files), three.num_new) == (8, 24, 16)
    assert set(one.files) <= set(three.files)
    assert len({(row.short_side, row.filter, row.quality) for row in three.files}) > 12


def test_blurred_copies_are_blurred_as_the_index_says(tmp_path: Path) -> None:
    source = write_data(tmp_path / "source", number=3)
    sharp, blurred = (aligned(source, tmp_path / str(blurs), size=32, blurs=blurs) for blurs in ((0, 0), (0.5, 2.0)))
    assert all(0.5 <= row.blur <= 2 for row in blurred.files)
    assert [replace(row, blur=0.0) for row in blurred.files] == list(sharp.files)
    files = zip(contents(tmp_path / "(0, 0)").values(), contents(tmp_path / "(0.5, 2.0)").values(), strict=True)
    assert not any(one == other for one, other in files)


def test_small_and_unreadable_files_are_left_out_by_name(tmp_path: Path) -> None:
    source = write_data(tmp_path / "source", number=3)
    write_class(source / "real", 50, 1, width=20, height=24)
    (source / "real" / "words.png").write_text("no image")
    done = aligned(source, tmp_path / "out", size=32)
    assert len(done.files) == 6
    words, small = sorted(done.failures, key=len, reverse=True)
    assert words.startswith(f"{source}/real/words.png: is not an image")
    assert small == f"{source}/real/50.png: 20x24 pixels, smaller than the window of 32 pixels: left out"


def test_the_size_that_all_files_have_room_for_is_taken(tmp_path: Path) -> None:
    write_class(tmp_path / "source" / "real", 0, 2, width=90, height=70)
    write_class(tmp_path / "source" / "generated", 10, 2, width=80, height=80)
    assert align(find_images([tmp_path / "source"]), tmp_path / "out").settings.size == 70


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        (
            {"seed": 1},
            ConfigError,
            r"seed=1: the copy in .* was made with seed=0; give the same value, or another folder$",
        ),
        ({"size": 32}, ConfigError, r"size=32: the copy in .* was made with size=40"),
        ({"size": 8}, ConfigError, r"size=8: at least 16 is needed"),
        ({"draws": 0}, ConfigError, r"draws=0: at least 1 is needed"),
        ({"workers": 0}, ConfigError, r"workers=0: at least 1 is needed"),
        ({"blurs": (0, 1)}, ConfigError, r"histories=.*blurs=\(0, 1\).*: the copy in .*blurs=\(0.0, 0.0\)"),
    ],
)
def test_a_call_that_does_not_fit_is_one_line(
    options: dict[str, Any], error: type[Exception], said: str, source: Path, out: Path
) -> None:
    with pytest.raises(error, match=said):
        aligned(source, out, **options)


def test_a_size_that_would_be_tiny_has_to_be_given(tmp_path: Path) -> None:
    write_data(tmp_path, number=1)
    with pytest.raises(InputError, match=r"40x32 pixels, too small to be the size of all windows; give --size"):
        align(find_images([tmp_path]), tmp_path / "out")


def test_a_folder_that_another_process_fills_is_left_alone(source: Path, tmp_path: Path) -> None:
    with claim(tmp_path), pytest.raises(StorageError, match="another process is writing"):
        aligned(source, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_smallest_window_and_its_reductions_have_a_least_side(tmp_path: Path) -> None:
    assert histories_of(100).short_sides == (80, 64, 50, 40, 30)
    assert histories_of(16).short_sides == (13, 10, 8, 8, 8)
    source = write_data(tmp_path / "source", number=1)
    assert aligned(source, tmp_path / "out", size=16).num_new == 2


def test_a_second_call_without_a_size_takes_that_of_the_copy(tmp_path: Path) -> None:
    source = write_data(tmp_path / "source", number=2)
    first = aligned(source, tmp_path / "out", size=32)
    second = aligned(source, tmp_path / "out", size=None)
    assert (second.settings, second.files, second.num_new) == (first.settings, first.files, 0)
    assert json.loads((tmp_path / "out" / SETTINGS).read_text())["size"] == 32


def test_a_size_of_64_pixels_is_chosen_and_a_smaller_one_is_not(tmp_path: Path) -> None:
    write_class(tmp_path / "real", 0, 1, width=64, height=100)
    assert aligned(tmp_path, tmp_path / "out", size=None).settings.size == 64
    write_class(tmp_path / "real", 1, 1, width=63, height=100)
    with pytest.raises(InputError, match=rf"^{tmp_path}/real/1\.png: 63x100 pixels, .*; give --size \(16 or more\)"):
        aligned(tmp_path / "real", tmp_path / "other", size=None)


def test_a_damaged_record_of_the_settings_is_named(tmp_path: Path) -> None:
    source = write_data(tmp_path / "source", number=1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / SETTINGS).write_text('{"size": "large"}')
    with pytest.raises(ConfigError, match=f"^{tmp_path}/out/{SETTINGS}: "):
        aligned(source, tmp_path / "out")


def test_without_a_readable_file_there_is_no_copy(tmp_path: Path) -> None:
    (tmp_path / "words.png").write_text("no image")
    with pytest.raises(InputError, match=r"^none of the files can be read as an image$"):
        aligned(tmp_path, tmp_path / "out")


def test_files_have_their_limits_in_both_passes(tmp_path: Path) -> None:
    source = write_data(tmp_path / "source", number=1)
    done = align(find_images([source], Limits(max_pixels=40 * 32 - 1)), tmp_path / "out", size=32)
    assert done.files == ()
    assert [failure.partition(": ")[0] for failure in done.failures] == [
        str(path) for path in sorted(source.rglob("*.png"))
    ]
    with pytest.raises(InputError, match="none of the files"):
        align(find_images([source], Limits(max_bytes=100)), tmp_path / "out", size=32)


def test_files_that_are_changed_or_deleted_between_the_passes_are_left_out_by_name(tmp_path: Path) -> None:
    source = write_data(tmp_path / "source", number=3)
    changed, deleted = source / "real" / "1.png", source / "real" / "2.png"
    told: list[tuple[str, int, int]] = []

    def progress(label: str, done: int, total: int, note: str = "") -> None:
        told.append((label, done, total))
        if told[-1] == ("sizes", 6, 6):
            shutil.copy(source / "real" / "0.png", changed)
            deleted.unlink()

    done = align(find_images([source]), tmp_path / "out", size=32, progress=progress)
    assert told == [(label, number, 6) for label in ("sizes", "align") for number in range(7)]
    assert [row.source for row in done.files] == [
        f"{name}.png" for name in ("generated/1000", "generated/1001", "generated/1002", "real/0")
    ]
    assert (done.num_new, len(contents(tmp_path / "out"))) == (4, 6)
    assert done.failures[0] == f"{changed}: changed during the run: try again"
    assert done.failures[1].startswith(f"{deleted}: ")
