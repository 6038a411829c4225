"""The figures of a detector after changes of all images, with a tiny untrained model and a detector made by hand."""

import logging
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detection.tiny import thresholds, unsure_detector
from labelled_images import picture, write_data
from rediffuse.detection.calibration import Calibration
from rediffuse.detection.detector import Detector
from rediffuse.detection.judge import judge
from rediffuse.detection.labelled import LabelledImage, find_labelled
from rediffuse.detection.metrics import roc_auc
from rediffuse.detection.robustness import (
    COLUMNS,
    STRENGTHS,
    RobustnessRow,
    changes_of,
    digest_of,
    key_of,
    measure,
    read_rows,
    robustness_table,
    write_rows,
)
from rediffuse.errors import ConfigError, InputError
from rediffuse.images.changes import Change
from rediffuse.images.find import MemoryImage
from rediffuse.zoo.model import DiffusionModel
from sampling.tiny import unet

ROW = RobustnessRow(
    change="unchanged",
    strength=None,
    num_real=3,
    num_generated=2,
    auc=0.5,
    real_called_generated=0.0,
    generated_called_real=1 / 3,
    decided=0.25,
    digest="ab",
)


@pytest.fixture(scope="module")
def model() -> DiffusionModel:
    return unet()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[LabelledImage]:
    return find_labelled(write_data(tmp_path_factory.mktemp("data"), 4))


@pytest.fixture(scope="module")
def detector(model: DiffusionModel, images: list[LabelledImage]) -> Detector:
    """A detector that calls some of the images real, some generated and some unsure."""
    one = unsure_detector(model)
    probabilities = [verdict.probability for verdict in judge(model, [image.found for image in images], one)]
    low, high = np.quantile(np.array(probabilities, np.float64), [0.4, 0.6])
    return replace(one, thresholds=thresholds(float(low), float(high)))


def test_unchanged_images_come_first_and_then_every_strength_of_the_named_changes() -> None:
    assert changes_of(["noise", "jpeg", "noise"]) == [
        None,
        *(Change("jpeg", quality) for quality in STRENGTHS["jpeg"]),
        *(Change("noise", sigma) for sigma in STRENGTHS["noise"]),
    ]
    assert key_of(None) == ("unchanged", None)
    assert key_of(Change("jpeg", 30)) == ("jpeg", 30)


@pytest.mark.parametrize("change", [None, *(Change(name, strengths[-1]) for name, strengths in STRENGTHS.items())])
def test_a_row_has_the_figures_of_the_verdicts_on_changed_images(
    model: DiffusionModel, detector: Detector, images: list[LabelledImage], change: Change | None
) -> None:
    seen: list[tuple[str, int, int]] = []
    row = measure(
        *(model, detector, images, change), digest="ab", batch_size=3, progress=lambda *done: seen.append(done[:3])
    )
    assert seen == [("unchanged" if change is None else str(change), number, 8) for number in range(9)]
    changed = []
    for place, image in enumerate(images):
        pixels = np.array(Image.open(image.found.path))
        changed.append(MemoryImage(pixels if change is None else change.apply(pixels, seed=place), image.found.name))
    verdicts = list(judge(model, changed, detector))
    labels = np.array([image.label for image in images])
    decisions = np.array([verdict.decision for verdict in verdicts])
    auc = roc_auc(labels, np.array([verdict.probability for verdict in verdicts]))
    assert (row.key, row.num_real, row.num_generated, row.digest) == (key_of(change), 4, 4, "ab")
    assert row.auc == pytest.approx(auc, abs=0.07)  # rounding can exchange two of the 16 pairs
    assert row.real_called_generated == np.mean(decisions[labels == 0] == "generated")
    assert row.generated_called_real == np.mean(decisions[labels == 1] == "real")
    assert row.decided == np.mean(decisions != "unsure")


def test_an_unreadable_file_is_reported_once_and_left_out(
    model: DiffusionModel, detector: Detector, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_data(tmp_path, 2)
    (folder / "real" / "words.png").write_text("no image")
    images = find_labelled(folder)
    with caplog.at_level(logging.DEBUG, "rediffuse.detection.robustness"):
        rows = [measure(model, detector, images, change, digest="") for change in (None, Change("blur", 1))]
    assert [(row.num_real, row.num_generated) for row in rows] == [(2, 2), (2, 2)]
    assert [record.levelname for record in caplog.records] == ["ERROR", "DEBUG"]
    assert caplog.messages[0].startswith(f"{folder}/real/words.png: is not an image")


def test_a_class_that_no_image_of_is_large_enough_has_no_figures(model: DiffusionModel, tmp_path: Path) -> None:
    folder = write_data(tmp_path, 1)
    picture(9, 20, 20).save(folder / "real" / "0.png")
    windowed = unsure_detector(model, crop="windows:2")
    row = measure(model, windowed, find_labelled(folder), Change("reduce", 0.5), digest="")
    assert (row.num_real, row.num_generated) == (0, 1)
    assert (row.auc, row.real_called_generated, row.generated_called_real, row.decided) == (None,) * 4
    assert robustness_table([row]).splitlines()[1].split() == ["reduce", "0.5", "0+1", "-", "-", "-", "-"]


def test_a_class_without_a_readable_image_is_refused(model: DiffusionModel, detector: Detector, tmp_path: Path) -> None:
    folder = write_data(tmp_path, 1)
    (folder / "real" / "0.png").write_text("no image")
    with pytest.raises(InputError, match=r"^none of the real images can be used; the first: .*0\.png: is not an image"):
        measure(model, detector, find_labelled(folder), None, digest="")


def test_the_digest_is_that_of_weights_thresholds_and_files(
    model: DiffusionModel, detector: Detector, tmp_path: Path
) -> None:
    folder = write_data(tmp_path, 2)
    images = find_labelled(folder)
    digests = [digest_of(detector, images), digest_of(detector, images)]
    assert digests[0] == digests[1]
    count = len(detector.scorer.input.features)
    scorer, familiarity = detector.scorer, detector.familiarity
    others = [
        replace(detector, thresholds=thresholds(0.1, 0.9)),
        replace(detector, calibration=Calibration(slope=2.0, offset=0.0)),
        replace(detector, settings=replace(detector.settings, steps=5)),
        replace(detector, scorer=replace(scorer, offset=1.0)),
        replace(detector, scorer=replace(scorer, weight=scorer.scale, scale=scorer.weight)),
        replace(detector, scorer=replace(scorer, input=replace(scorer.input, name="image"))),
        replace(detector, familiarity=replace(familiarity, limit=3.0)),
        replace(detector, familiarity=replace(familiarity, centres=np.ones((2, count)))),
        replace(detector, familiarity=replace(familiarity, precision=2 * np.eye(count))),
    ]
    digests += [digest_of(other, images) for other in others]
    digests += [digest_of(detector, given) for given in (images[1:], images[::-1], [*images[:-1], images[0]])]
    digests += [digest_of(detector, [replace(images[0], label=1), *images[1:]])]
    digests += [digest_of(detector, [replace(images[0], found=replace(images[0].found, name="b")), *images[1:]])]
    assert all(re.fullmatch("[0-9a-f]{16}", one) for one in digests)
    picture(5).save(folder / "real" / "0.png")
    digests += [digest_of(detector, images)]
    (folder / "real" / "0.png").unlink()
    digests += [digest_of(detector, images)]
    assert len(set(digests)) == len(digests) - 1


def test_rows_are_read_as_they_were_written_in_their_order(tmp_path: Path) -> None:
    rows = [replace(ROW, change="webp", strength=30.0), replace(ROW, change="jpeg", strength=95.0, auc=None), ROW]
    write_rows(tmp_path / "rows.csv", rows)
    assert read_rows(tmp_path / "rows.csv") == rows[::-1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n1,2\n", "is not a table of `rediffuse eval robustness`; give another file"),
        (b"", "is not a table of `rediffuse eval robustness`"),
        (f"{','.join(COLUMNS[:-1])},hash\n".encode(), "is not a table of `rediffuse eval robustness`"),
        (b"\xff\xfe", "cannot be read: "),
    ],
)
def test_another_file_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(content)
    with pytest.raises(InputError, match=f"rows.csv: {message}"):
        read_rows(tmp_path / "rows.csv")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("0.25", "much", r"rows\.csv: decided: .* given 'much'"),
        ("unchanged", "sepia", r"rows\.csv: change"),
        ("unchanged,", "jpeg,31", r"rows\.csv: jpeg of strength 31\.0 is no change of this version"),
        ("ab", "ab,", r"rows\.csv: is not a table"),
    ],
)
def test_a_row_with_a_wrong_field_is_refused(before: str, after: str, message: str, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.csv", [ROW])
    text = (tmp_path / "rows.csv").read_text()
    (tmp_path / "rows.csv").write_text(text.replace(f"\n{before}", f"\n{after}").replace(f",{before}", f",{after}"))
    with pytest.raises((InputError, ConfigError), match=message):
        read_rows(tmp_path / "rows.csv")


def test_the_table_has_a_line_for_each_row() -> None:
    assert robustness_table([ROW, replace(ROW, change="reduce", strength=0.5)]).splitlines() == [
        "change     strength  images  AUC    false alarms  missed  decided",
        "unchanged            3+2     0.500  0.0%          33.3%   25.0%",
        "reduce     0.5       3+2     0.500  0.0%          33.3%   25.0%",
    ]
