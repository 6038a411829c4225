"""The audit names what reveals the class, and nothing where nothing does."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labelled_images import as_jpeg, as_png, picture, write_class, write_data
from rediffuse.detection.audit import AuditReport, audit, audit_folder, audit_paths
from rediffuse.errors import InputError


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
    write_data(tmp_path, number=25)
    (tmp_path / "real" / "words.png").write_text("no image")
    report = audited(tmp_path)
    [reason] = report.unreadable
    assert reason.startswith(f"{tmp_path}/real/words.png: is not an image")
    assert (report.num_real, report.num_generated) == (25, 25)
    assert report.facts is not None


def test_a_sample_is_drawn_alike_and_named(equal: Path) -> None:
    images = audit_folder(equal)
    first, second = (audit(images, max_files=30, seed=1) for _ in range(2))
    assert first == second
    assert (first.num_real, first.num_generated, first.num_found) == (30, 30, 200)
    assert "60 of 200 files were examined" in first.reservations


def test_a_missing_class_is_named(tmp_path: Path) -> None:
    write_class(tmp_path / "real", 0, 1)
    with pytest.raises(InputError, match=r"has no folder of generated images"):
        audit_folder(tmp_path)
    with pytest.raises(InputError, match=r"^no generated images are given"):
        audit_paths([tmp_path / "real"], [])
