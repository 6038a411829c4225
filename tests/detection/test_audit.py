"""The audit names what reveals the class, and nothing where nothing does."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labelled_images import as_jpeg, as_png, picture, write_class, write_data
from rediffuse.detection.audit import AuditReport, audit, audit_folder, audit_paths, sampled
from rediffuse.detection.duplicates import Duplicate, Part
from rediffuse.detection.leaks import Difference, Leak
from rediffuse.detection.metrics import Interval
from rediffuse.detection.swap import SwapTest
from rediffuse.errors import InputError
from rediffuse.images.limits import Limits


def leak(low: float, value: float, high: float) -> Leak:
    return Leak(files=Interval(value=value, low=low, high=high))


SILENT, WEAK, CLEAR = leak(0.45, 0.5, 0.55), leak(0.51, 0.53, 0.58), leak(0.6, 0.7, 0.8)
CLEAN = AuditReport(
    num_real=100, num_generated=100, num_found=200, num_examined=200, facts=SILENT, grid=SILENT, subject=SILENT
)
STILL = SwapTest(
    num_real=9,
    num_generated=9,
    quality=75,
    unchanged=Interval(value=0.8, low=0.7, high=0.9),
    real=Interval(value=0.0, low=-0.1, high=0.1),
    generated=Interval(value=0.0, low=-0.1, high=0.1),
)


def in_several(number: int, *across: Part) -> tuple[Duplicate, ...]:
    return (Duplicate(files=tuple(map(str, range(number))), same_bytes=True, across=across),)


@pytest.fixture(scope="module")
def equal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("equal"), 100)


@pytest.fixture(scope="module")
def equal_report(equal: Path) -> AuditReport:
    return audit(audit_folder(equal))


def audited(folder: Path) -> AuditReport:
    return audit(audit_folder(folder))


def test_classes_that_are_saved_alike_can_carry_a_claim(equal_report: AuditReport) -> None:
    assert equal_report.facts is not None
    assert equal_report.facts.files.low <= 0.5 <= equal_report.facts.files.high
    assert equal_report.differences == ()
    assert equal_report.duplicates == ()
    assert equal_report.can_carry_a_claim
    assert equal_report.line.startswith(
        "these data can carry a claim, because the files do not reveal the class (AUC 0.5"
    )


def test_a_class_of_another_format_is_caught_and_named(tmp_path: Path) -> None:
    report = audited(write_data(tmp_path, generated=as_jpeg))
    assert report.facts is not None
    assert report.facts.files.value > 0.99
    said = [difference.statement for difference in report.differences]
    assert any(statement.startswith("the JPEG has the quantisation tables") for statement in said)
    assert {"the format is PNG", "the format is JPEG"} & set(said)
    assert not report.can_carry_a_claim
    assert report.line.startswith("these data cannot carry a claim, because the files reveal the class (AUC 1.000")
    assert "100% of the" in report.line


def test_a_class_of_another_size_is_caught_and_named(tmp_path: Path) -> None:
    write_class(tmp_path / "real", 0, 40, width=48, height=32)
    write_class(tmp_path / "generated", 1000, 40, width=32, height=32)
    report = audited(tmp_path)
    assert report.facts is not None
    assert report.facts.reveals_class
    assert any(
        "at most 32" in str(difference) and "0% of the real ones" in str(difference)
        for difference in report.differences
    )


def test_a_prompt_in_the_files_of_one_class_is_caught_and_named(tmp_path: Path) -> None:
    def with_comment(image: Image.Image, path: Path) -> None:
        image.save(path.with_suffix(".jpg"), quality=70, comment=b"a cat, 20 steps")

    report = audited(write_data(tmp_path, real=as_jpeg, generated=with_comment))
    assert report.differences[0].statement == "there is text in the file"
    assert (report.differences[0].real, report.differences[0].generated) == (0, 1)


def test_a_jpeg_past_that_png_hides_is_caught(tmp_path: Path) -> None:
    def was_jpeg(image: Image.Image, path: Path) -> None:
        as_jpeg(image, path)
        Image.open(path.with_suffix(".jpg")).save(path.with_suffix(".png"))
        path.with_suffix(".jpg").unlink()

    report = audited(write_data(tmp_path, real=was_jpeg))
    assert report.facts is not None
    assert report.grid is not None
    assert not report.facts.reveals_class
    assert report.grid.files.value > 0.9
    assert "an 8-pixel grid, as JPEG leaves it, reveals the class" in report.line


def test_a_subject_of_one_class_is_a_reservation(tmp_path: Path) -> None:
    for label, name in enumerate(("real", "generated")):
        (tmp_path / name).mkdir()
        for seed in range(60):
            pixels = np.asarray(picture(1000 * label + seed)).astype(int)
            Image.fromarray((pixels // 2 + 100 * label).astype(np.uint8)).save(tmp_path / name / f"{seed}.png")
    report = audited(tmp_path)
    assert report.subject is not None
    assert report.subject.reveals_class
    assert report.can_carry_a_claim
    assert "what the pictures show reveals it" in report.line
    assert "compare every figure with that of a control" in report.line


def test_whole_groups_are_left_out_where_there_are_some(tmp_path: Path) -> None:
    for number, group in enumerate(("real/a", "real/b", "generated/c", "generated/d", "generated/e")):
        write_class(tmp_path / group, 100 * number, 20, as_jpeg if group == "generated/e" else as_png)
    report = audited(tmp_path)
    assert report.facts is not None
    assert report.facts.groups is not None
    assert report.facts.files.value > 0.6  # a third of the generated files
    # Both times all that is learnt of JPEG comes from, or goes to, one group alone.
    assert report.facts.groups.value < report.facts.files.value


def test_data_without_groups_have_no_figure_for_groups(equal_report: AuditReport) -> None:
    assert equal_report.facts is not None
    assert equal_report.facts.groups is None


def test_pictures_that_two_splits_share_are_found_encoded_again_or_not(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "test")):
        write_class(tmp_path / split / "real", 100 * number, 20)
        write_class(tmp_path / split / "generated", 1000 + 100 * number, 20)
    shutil.copy(tmp_path / "train/real/3.png", tmp_path / "test/real/same.png")
    large = picture(5000, width=128, height=96)
    large.save(tmp_path / "train/generated/large.png")
    large.resize((64, 48), Image.Resampling.BICUBIC).save(tmp_path / "test/generated/alike.jpg", quality=85)
    report = audited(tmp_path)
    found = {duplicate.files: (duplicate.same_bytes, duplicate.across) for duplicate in report.duplicates}
    assert found == {
        ("train/real/3.png", "test/real/same.png"): (True, ("splits",)),
        ("train/generated/large.png", "test/generated/alike.jpg"): (False, ("splits",)),
    }
    assert report.num_across("splits") == 4
    assert "4 of 83 files show a picture that is in several splits" in report.line


def test_a_file_in_both_classes_is_found(equal: Path) -> None:
    report = audit(audit_paths([equal / "real" / "[1-3]?.png"], [equal / "real" / "[1-3]?.png"]))
    assert report.num_across("classes") == 60
    assert "60 of 60 files show a picture that is in both classes" in report.line


def test_few_files_are_too_few_and_the_rest_goes_on(tmp_path: Path) -> None:
    report = audited(write_data(tmp_path, number=5))
    assert report.facts is None
    assert report.line == (
        "these data cannot carry a claim, because there are 5 readable real files, and at least 20 of each class are "
        "needed; and there are 5 readable generated files, and at least 20 of each class are needed"
    )


def test_unreadable_files_are_lines_and_the_others_are_audited(tmp_path: Path) -> None:
    write_data(tmp_path, number=20)
    (tmp_path / "real" / "words.png").write_text("no image")
    report = audited(tmp_path)
    [reason] = report.unreadable
    assert reason.startswith(f"{tmp_path}/real/words.png: is not an image")
    assert (report.num_real, report.num_generated) == (20, 20)
    assert report.facts is not None


def test_a_sample_is_drawn_alike_and_named(equal: Path) -> None:
    images = audit_folder(equal)
    first, second = audit(images, max_files=30), audit(images, max_files=30, seed=0, workers=1)
    assert first == second
    assert (first.num_real, first.num_generated, first.num_found) == (30, 30, 200)
    assert "60 of 200 files were examined" in first.reservations
    kept = sampled(images, 30, 0)
    assert sorted(kept, key=images.index) == kept
    assert sampled(images, 30, 1) != kept
    assert sampled(images, None, 0) == sampled(images, 100, 0) == images


def test_classes_of_different_size_are_sampled_and_counted_each_by_itself(tmp_path: Path) -> None:
    write_class(tmp_path / "real", 0, 5)
    write_class(tmp_path / "generated", 9, 2)
    images = audit_folder(tmp_path)
    assert {image.found.name.split("/")[0] for image in images} == {"real", "generated"}  # there is no split
    for most, counts in ((None, (5, 2)), (3, (3, 2)), (1, (1, 1))):
        report = audit(images, max_files=most)
        assert (report.num_real, report.num_generated) == counts
        assert sum(image.label for image in sampled(images, most, 0)) == counts[1]


def test_a_missing_class_is_named(tmp_path: Path) -> None:
    write_class(tmp_path / "real", 0, 1)
    with pytest.raises(InputError, match=r"has no folder of generated images"):
        audit_folder(tmp_path)
    with pytest.raises(InputError, match=r"^no generated images are given"):
        audit_paths([tmp_path / "real"], [])


def test_files_are_named_and_grouped_by_split_class_and_folder(tmp_path: Path) -> None:
    names = [f"{split}/{name}/1.png" for split in ("test", "train", "val") for name in ("real/phone/may", "generated")]
    for name in names:
        write_class((tmp_path / name).parent, 1, 1)
    limits = Limits(max_pixels=40 * 32 - 1)
    images = audit_folder(tmp_path, limits)
    assert {(image.found.name, image.label, image.split, image.group) for image in images} == {
        (name, int("generated" in name), name.partition("/")[0], "phone" if "real" in name else "generated")
        for name in names
    }
    assert len(audit(images).unreadable) == len(audit(audit_folder(tmp_path / "val", limits)).unreadable) + 4 == 6
    assert audit(audit_folder(tmp_path)).unreadable == ()


def test_files_that_are_given_by_class_have_the_folders_below_as_groups(tmp_path: Path) -> None:
    for folder in ("a", "a/phone/may", "b"):
        write_class(tmp_path / folder, 1, 1)
    limits = Limits(max_pixels=40 * 32 - 1)
    images = audit_paths([tmp_path / "a"], [tmp_path / "b"], limits)
    assert [(image.found.name, image.label, image.split, image.group) for image in images] == [
        ("real/1.png", 0, "", ""),
        ("real/phone/may/1.png", 0, "", "phone"),
        ("generated/1.png", 1, "", ""),
    ]
    assert len(audit(images).unreadable) == 3


def test_every_file_that_was_read_is_reported(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    images = audit_folder(write_data(tmp_path, number=2))
    audit(images, progress=lambda label, done, total, note="": told.append((label, done, total)))
    assert told == [("audit", done, 4) for done in range(5)]


def test_where_nothing_reveals_the_class_there_is_nothing_to_say() -> None:
    assert (CLEAN.problems, CLEAN.reservations) == ((), ())
    assert CLEAN.line == (
        "these data can carry a claim, because the files do not reveal the class (AUC 0.500 [0.450, 0.550])"
    )


def test_with_twenty_files_of_each_class_a_claim_can_be_carried() -> None:
    assert replace(CLEAN, num_real=20, num_generated=20).problems == ()
    assert replace(CLEAN, num_real=19, num_generated=0).problems == (
        "there are 19 readable real files, and at least 20 of each class are needed",
        "there are no readable generated files, and at least 20 of each class are needed",
    )


def test_files_that_reveal_the_class_are_shown_by_the_largest_difference() -> None:
    report = replace(CLEAN, facts=CLEAR)
    differences = tuple(Difference(statement=f"the format is {name}", real=0, generated=1) for name in ("PNG", "JPEG"))
    revealed = "the files reveal the class (AUC 0.700 [0.600, 0.800]"
    assert report.problems == (f"{revealed})",)
    assert replace(report, differences=differences).problems == (f"{revealed}; {differences[0]})",)
    # It may be the same difference that leaves a grid.
    assert replace(report, grid=CLEAR).problems == report.problems
    assert replace(CLEAN, facts=leak(0.5, 0.6, 0.7)).problems == (
        "there are too few files to say whether they reveal the class (AUC 0.600 [0.500, 0.700])",
    )


def test_a_clear_grid_is_a_problem_and_a_weak_one_a_reservation() -> None:
    clear, weak = replace(CLEAN, grid=CLEAR), replace(CLEAN, grid=WEAK)
    said = "an 8-pixel grid, as JPEG leaves it,"
    assert (clear.problems, clear.reservations) == ((f"{said} reveals the class (AUC 0.700 [0.600, 0.800])",), ())
    assert replace(clear, facts=None).problems == clear.problems
    assert (weak.problems, weak.reservations) == (
        (),
        (f"{said} is a weak sign of the class (AUC 0.530 [0.510, 0.580])",),
    )
    assert replace(CLEAN, grid=leak(0.5, 0.53, 0.58)).reservations == ()


@pytest.mark.parametrize(("part", "words"), [("classes", "both classes"), ("splits", "several splits")])
def test_one_percent_of_repeated_pictures_is_tolerated(part: Part, words: str) -> None:
    few, many = (replace(CLEAN, duplicates=in_several(number, part)) for number in (2, 3))
    said = f"of 200 files show a picture that is in {words}"
    assert (few.problems, few.reservations) == ((), (f"2 {said}",))
    assert (many.problems, many.reservations) == ((f"3 {said}",), ())


def test_pictures_in_several_groups_are_named_unless_they_are_in_both_classes() -> None:
    assert replace(CLEAN, duplicates=in_several(5, "groups")).reservations == (
        "5 files show a picture that is in several groups: leave these groups out together",
    )
    assert replace(CLEAN, duplicates=in_several(2, "classes", "groups")).reservations == (
        "2 of 200 files show a picture that is in both classes",
    )


def test_a_detector_that_responds_to_the_encoding_is_a_problem() -> None:
    moved = replace(STILL, real=Interval(value=0.2, low=0.15, high=0.25))
    assert replace(CLEAN, swap=moved).problems == (f"the detector responds to how files are encoded ({moved})",)
    assert replace(CLEAN, swap=STILL).problems == ()


def test_reservations_follow_the_conclusion_in_its_line() -> None:
    report = replace(CLEAN, num_examined=150, num_found=200, unreadable=("a.png: is empty", "b.png: is empty"))
    assert report.line == (
        "these data can carry a claim, because the files do not reveal the class (AUC 0.500 [0.450, 0.550]); "
        "but 150 of 200 files were examined; and 2 of 150 files cannot be read"
    )
