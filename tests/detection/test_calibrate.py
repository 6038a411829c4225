"""Thresholds by own files: what they promise, which files and groups count, and what is kept of the detector."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import beta

from detection.tiny import unsure_detector
from rediffuse.detection.calibrate import calibrate, find_own, share
from rediffuse.detection.config import Limits
from rediffuse.detection.detector import Detector
from rediffuse.detection.judge import judge
from rediffuse.detection.left_out import LeftOut
from rediffuse.detection.metrics import roc_auc
from rediffuse.errors import ConfigError, InputError
from rediffuse.images.find import find_images
from rediffuse.images.limits import Limits as FileLimits
from rediffuse.zoo.model import DiffusionModel
from sampling.tiny import unet

LEFT_OUT = LeftOut(real={"cameras": (0.1, 0.2)}, generated={"flux": tuple(np.linspace(0.45, 0.9, 40).tolist())})


@pytest.fixture(scope="module")
def model() -> DiffusionModel:
    return unet()


@pytest.fixture(scope="module")
def detector(model: DiffusionModel) -> Detector:
    return replace(unsure_detector(model), left_out=LEFT_OUT, training={"by": "a test"})


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 images in photos/, 4 in photos/phone/2024/; all unlike each other."""
    folder = tmp_path_factory.mktemp("own") / "photos"
    for number in range(12):
        write(folder / f"{number}.png", number)
    for number in range(12, 16):
        write(folder / "phone" / "2024" / f"{number}.png", number)
    return folder


def write(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    pixels = random.normal(128, 2 + 5 * seed, (16, 16, 3)).clip(0, 255)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def scores(model: DiffusionModel, detector: Detector, photos: Path) -> list[float]:
    """The probabilities of the photographs, in order."""
    given = (verdict.probability for verdict in judge(model, find_images([photos]), detector))
    return sorted(probability for probability in given if probability is not None)


def test_at_most_a_share_of_own_photographs_is_called_generated(
    model: DiffusionModel, detector: Detector, photos: Path, scores: list[float]
) -> None:
    calibrated = calibrate(model, [photos], detector, limits=Limits(max_false_alarms=0.13))
    assert calibrated.detector.left_out.generated == LEFT_OUT.generated
    assert sorted(score for group in calibrated.detector.left_out.real.values() for score in group) == scores
    assert {name: len(group) for name, group in calibrated.detector.left_out.real.items()} == {
        "photos": 12,
        "photos/phone/2024": 4,
    }
    real, generated = calibrated.classes
    # (errors + 1) / (16 + 1) is within the limit for one error, and not for two.
    assert scores[-2] < real.threshold <= scores[-1]
    assert (real.num_images, real.num_groups, real.limit, real.is_own, real.is_for_unseen) == (16, 2, 0.13, True, False)
    assert real.smallest_limit == pytest.approx(1 / 17)
    assert real.decisions is not None
    assert real.decisions["generated"].value == pytest.approx(1 / 16)
    assert sum(part.value for part in real.decisions.values()) == pytest.approx(1)
    assert (generated.num_images, generated.num_groups, generated.is_own, generated.decisions) == (40, 1, False, None)
    assert (generated.label, generated.limit, generated.smallest_limit) == ("generated", 0.05, pytest.approx(1 / 41))
    assert calibrated.auc is None
    assert (generated.threshold, real.threshold) == (
        calibrated.detector.thresholds.real,
        calibrated.detector.thresholds.generated,
    )


def test_only_scores_thresholds_and_the_record_change(model: DiffusionModel, detector: Detector, photos: Path) -> None:
    made = calibrate(model, [photos], detector, limits=Limits(max_false_alarms=0.2)).detector
    assert replace(made, left_out=LEFT_OUT, thresholds=detector.thresholds, training=detector.training) == detector
    assert made.training == {
        "by": "a test",
        "calibrated": {"real": {"images": 16, "groups": 2}, "num_skipped": 0},
    }


def test_own_generated_images_take_the_place_of_those_of_the_training(
    model: DiffusionModel, detector: Detector, photos: Path, tmp_path: Path
) -> None:
    for number in range(20):
        write(tmp_path / "fakes" / f"model{number}" / "a.png", 100 + number)
    (tmp_path / "fakes" / "words.png").write_text("no image")
    calibrated = calibrate(
        model, [photos], detector, generated=[tmp_path / "fakes"], limits=Limits(max_false_alarms=0.2)
    )
    assert set(calibrated.detector.left_out.generated) == {f"fakes/model{number}" for number in range(20)}
    generated = calibrated.classes[1]
    assert (generated.num_images, generated.num_groups, generated.is_own, generated.is_for_unseen) == (
        20,
        20,
        True,
        True,
    )
    assert generated.decisions is not None
    parts = calibrated.detector.left_out
    of_class = [[score for group in groups.values() for score in group] for groups in (parts.real, parts.generated)]
    assert calibrated.auc is not None
    assert calibrated.auc.value == pytest.approx(roc_auc(np.repeat([0, 1], [16, 20]), np.concatenate(of_class)))
    assert [reason.partition(": ")[0] for reason in calibrated.skipped] == [str(tmp_path / "fakes" / "words.png")]
    assert calibrated.detector.training["calibrated"] == {
        "real": {"images": 16, "groups": 2},
        "generated": {"images": 20, "groups": 20},
        "num_skipped": 1,
    }


def test_images_unlike_those_of_the_training_count_and_stay_unsure(
    model: DiffusionModel, detector: Detector, photos: Path, scores: list[float]
) -> None:
    strict = replace(detector, familiarity=replace(detector.familiarity, limit=-1.0))
    real = calibrate(model, [photos], strict, limits=Limits(max_false_alarms=0.13)).classes[0]
    assert (real.num_images, scores[-2] < real.threshold <= scores[-1]) == (16, True)
    assert real.decisions is not None
    assert real.decisions["unsure"].value == 1


def test_too_few_photographs_are_refused_before_the_work_with_the_number_that_is_needed(
    model: DiffusionModel, detector: Detector, photos: Path
) -> None:
    labels: list[str] = []

    def progress(label: str, done: int, total: int, note: str = "") -> None:
        labels.append(label)

    message = r"^max_false_alarms=0\.05: needs 19 images of photographs .* there are 16 images in 2 groups"
    with pytest.raises(ConfigError, match=message):
        calibrate(model, [photos], detector, progress=progress)
    assert labels == []


def test_a_folder_without_a_usable_image_is_named_with_its_first_file(
    model: DiffusionModel, detector: Detector, tmp_path: Path
) -> None:
    for number in range(4):
        (tmp_path / f"{number}.png").write_text("no image")
    with pytest.raises(
        InputError, match=rf"^none of the real images can be used; the first: {tmp_path}/0\.png: is not"
    ):
        calibrate(model, [tmp_path], detector, limits=Limits(max_false_alarms=0.3))


@pytest.mark.parametrize("name", ["batch_size", "workers"])
def test_numbers_are_at_least_one(name: str, model: DiffusionModel, detector: Detector, photos: Path) -> None:
    with pytest.raises(ConfigError, match=f"^{name}=0: at least 1 is needed"):
        calibrate(model, [photos], detector, limits=Limits(max_false_alarms=0.2), **{name: 0})


def test_files_above_their_limits_are_not_used(
    model: DiffusionModel, detector: Detector, photos: Path, tmp_path: Path
) -> None:
    limits = Limits(max_false_alarms=0.2)
    with pytest.raises(InputError, match=r"^none of the real images can be used; the first: .*16x16 pixels"):
        calibrate(model, [photos], detector, limits=limits, decoding=FileLimits(max_pixels=255))
    for number in range(20):
        Image.new("RGB", (17, 17), (number, 0, 0)).save(tmp_path / f"{number}.png")
    with pytest.raises(InputError, match=r"^none of the generated images can be used; the first: .*17x17 pixels"):
        calibrate(model, [photos], detector, generated=[tmp_path], limits=limits, decoding=FileLimits(max_pixels=256))


def test_every_image_that_was_judged_is_reported(model: DiffusionModel, detector: Detector, photos: Path) -> None:
    told: list[tuple[str, int, int]] = []
    calibrate(
        model,
        [photos],
        detector,
        limits=Limits(max_false_alarms=0.2),
        progress=lambda label, done, total, note="": told.append((label, done, total)),
    )
    assert told == [("judge", done, 16) for done in range(17)]


def test_a_file_of_both_classes_is_refused(model: DiffusionModel, detector: Detector, photos: Path) -> None:
    with pytest.raises(InputError, match=rf"^{photos}/phone/2024/12\.png: is in folders of both classes"):
        calibrate(model, [photos], detector, generated=[photos / "phone"], limits=Limits(max_false_alarms=0.2))


def test_a_path_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"^{tmp_path}/a: is not a folder; folders of real images are needed$"):
        find_own([tmp_path / "a"], "real")


def test_a_file_in_two_folders_counts_once_and_folders_of_one_name_are_two_groups(tmp_path: Path) -> None:
    for name in ("a/photos/1.png", "b/photos/2.png", "c/photos/3.png"):
        write(tmp_path / name, 0)
    images = find_own([*(tmp_path / name / "photos" for name in "abc"), tmp_path / "a"], "generated")
    assert [(image.label, image.group, image.found.name) for image in images] == [
        (1, "photos", "generated/photos/1.png"),
        (1, "photos-2", "generated/photos-2/2.png"),
        (1, "photos-3", "generated/photos-3/3.png"),
    ]


@pytest.mark.parametrize(("count", "total"), [(0, 20), (3, 20), (20, 20)])
def test_the_interval_of_a_share_is_that_of_clopper_and_pearson(count: int, total: int) -> None:
    interval = share(count, total)
    assert interval.value == count / total
    assert interval.low == pytest.approx(beta.ppf(0.025, count, total - count + 1) if count else 0)
    assert interval.high == pytest.approx(beta.ppf(0.975, count + 1, total - count) if count < total else 1)
