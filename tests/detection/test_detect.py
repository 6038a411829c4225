"""`rediffuse.detect` with a tiny model: its arguments, and that its verdicts equal those of the command."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import rediffuse
from detection.tiny import unsure_detector
from rediffuse.cli.main import main
from rediffuse.detection.detect import detect_each
from rediffuse.detection.detector import Detector
from rediffuse.detection.left_out import LeftOut
from rediffuse.errors import ConfigError, InputError, SettingsMismatch
from rediffuse.images.find import MemoryImage
from rediffuse.zoo.model import DiffusionModel
from sampling.tiny import unet

PHOTO = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


@pytest.fixture(scope="module")
def model() -> DiffusionModel:
    return unet()


@pytest.fixture(scope="module")
def detector(model: DiffusionModel) -> Detector:
    return unsure_detector(model)


def test_files_get_the_verdicts_of_the_command(
    model: DiffusionModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model.save(tmp_path / "model")
    unsure_detector(rediffuse.load(tmp_path / "model")).save(tmp_path / "model" / "detector")
    images = tmp_path / "images"
    for name in ("a.png", "b/c.png"):
        (images / name).parent.mkdir(exist_ok=True, parents=True)
    Image.fromarray(PHOTO).save(images / "a.png")
    Image.fromarray(PHOTO[::-1]).save(images / "b" / "c.png")
    (images / "words.png").write_text("no image")
    verdicts = rediffuse.detect(images, model=tmp_path / "model", detector=tmp_path / "model", device="cpu")
    flags = ["--model", tmp_path / "model", "--detector", tmp_path / "model", "--out", tmp_path / "table.json"]
    assert main(["detect", str(images), *map(str, flags), "--device", "cpu"]) == 1
    capsys.readouterr()
    assert json.loads((tmp_path / "table.json").read_text()) == [verdict.to_row() for verdict in verdicts]
    assert [verdict.file for verdict in verdicts] == ["a.png", "b/c.png", "words.png"]


def test_an_image_in_memory_is_judged_as_its_file_is(model: DiffusionModel, detector: Detector, tmp_path: Path) -> None:
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    images = [PHOTO, tmp_path / "photo.png", Image.fromarray(PHOTO), Image.open(tmp_path / "photo.png")]
    told: list[tuple[str, int, int]] = []
    verdicts = rediffuse.detect(
        images,
        model=model,
        detector=detector,
        batch_size=4,
        workers=3,
        progress=lambda label, done, total, note="": told.append((label, done, total)),
    )
    assert told == [("detect", done, 4) for done in range(5)]
    assert [verdict.file for verdict in verdicts] == ["image 0", "photo.png", "image 2", "image 3"]
    for verdict in verdicts:
        assert verdict.decision is not None
        assert verdict.probability == pytest.approx(verdicts[1].probability, abs=1e-5)


def test_what_cannot_be_judged_gets_a_reason_and_the_others_a_decision(
    model: DiffusionModel, detector: Detector
) -> None:
    images = [np.zeros((8, 8), np.uint8), PHOTO, PHOTO / 255, PHOTO[:4], Image.new("F", (20, 20))]
    verdicts = rediffuse.detect(images, model=model, detector=detector)
    assert [verdict.judged for verdict in verdicts] == [False, True, False, False, False]
    assert [verdict.reason for verdict in verdicts if not verdict.judged] == [
        "image 0: given an array (8, 8) uint8; (H, W, 3) uint8 is needed",
        "image 2: given an array (40, 60, 3) float64; (H, W, 3) uint8 is needed",
        "image 3: 60x4 pixels, at least 8 on each side are needed",
        "image 4: floating-point pixels have no standard value for white: save it with 8 or 16 bits",
    ]


def test_evidence_is_kept_where_it_is_asked_for(model: DiffusionModel, detector: Detector) -> None:
    [without] = rediffuse.detect(PHOTO, model=model, detector=detector)
    [kept] = rediffuse.detect(PHOTO[None], model=model, detector=detector, evidence=True)
    assert without.evidence is None
    assert kept.evidence is not None
    assert kept.evidence.x_0.shape == (1, 3, model.image_size, model.image_size)
    assert kept == without


@pytest.mark.parametrize("stability", [False, True])
def test_verdicts_without_explanations_are_the_same(stability: bool, model: DiffusionModel, detector: Detector) -> None:
    full, bare = (
        list(
            detect_each(
                [MemoryImage(PHOTO, "a")],
                model=model,
                detector=detector,
                max_false_alarms=None,
                max_misses=None,
                stability=stability,
                batch_size=4,
                workers=1,
                device="cpu",
                precision="auto",
                explain=explain,
                evidence=False,
            )
        )
        for explain in (True, False)
    )
    assert full[0].contributions != bare[0].contributions == ()
    assert [replace(full[0], contributions=())] == bare


def test_what_is_no_image_or_does_not_exist_is_an_error(model: DiffusionModel, detector: Detector) -> None:
    with pytest.raises(InputError, match="image 1: is a float; a path, a Pillow image or a uint8 array"):
        rediffuse.detect([PHOTO, 0.5], model=model, detector=detector)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=r"nowhere\.png: does not exist"):
        rediffuse.detect("nowhere.png", model=model, detector=detector)
    with pytest.raises(InputError, match="no files"):
        rediffuse.detect([], model=model, detector=detector)


@pytest.mark.parametrize("name", ["batch_size", "workers", "max_pixels"])
def test_numbers_are_at_least_one(name: str, model: DiffusionModel, detector: Detector) -> None:
    with pytest.raises(ConfigError, match=f"^{name}=0: at least 1 is needed"):
        rediffuse.detect(PHOTO, model=model, detector=detector, **{name: 0})


@pytest.mark.parametrize("limits", [(0.3, None), (None, 0.3), (0.3, 0.2)])
def test_each_limit_moves_its_own_threshold(
    limits: tuple[float | None, float | None], model: DiffusionModel, detector: Detector
) -> None:
    scores = np.linspace(0, 1, 40)
    left_out = LeftOut(real={"a": tuple((scores**2).tolist())}, generated={"b": tuple((scores**0.5).tolist())})
    detector = replace(detector, left_out=left_out).with_limits(0.05, 0.1)
    max_false_alarms, max_misses = limits
    [verdict] = rediffuse.detect(
        PHOTO, model=model, detector=detector, max_false_alarms=max_false_alarms, max_misses=max_misses
    )
    expected = left_out.thresholds(max_false_alarms or 0.05, max_misses or 0.1)
    assert (verdict.threshold, verdict.real_threshold) == (expected.generated, expected.real)
    assert verdict.real_bound is not None
    assert verdict.generated_bound is not None
    assert (verdict.real_bound.limit, verdict.generated_bound.limit) == (max_false_alarms or 0.05, max_misses or 0.1)


def test_files_with_too_many_pixels_are_not_decoded(model: DiffusionModel, detector: Detector, tmp_path: Path) -> None:
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    small, enough = (
        rediffuse.detect(tmp_path, model=model, detector=detector, max_pixels=limit)[0] for limit in (2399, 2400)
    )
    assert (small.judged, enough.judged) == (False, True)


def test_only_a_precision_that_gives_equal_verdicts_is_accepted(model: DiffusionModel, detector: Detector) -> None:
    with pytest.raises(ConfigError, match=r"^precision=bf16: was not shown to be equal for this detector"):
        rediffuse.detect(PHOTO, model=model, detector=detector, precision="bf16")


def test_a_model_that_is_given_by_name_is_loaded_on_the_device(model: DiffusionModel, tmp_path: Path) -> None:
    model.save(tmp_path)
    with pytest.raises(ConfigError, match=r"^device=abacus: "):
        rediffuse.detect(PHOTO, model=tmp_path, device="abacus")


def test_the_contributions_of_bands_are_in_every_verdict(model: DiffusionModel, detector: Detector) -> None:
    [verdict] = rediffuse.detect(PHOTO, model=model, detector=detector)
    assert len(verdict.contributions) == len(verdict.bands) > 0
    assert verdict.copies == ()


def test_the_detector_of_another_model_is_refused(model: DiffusionModel, detector: Detector, tmp_path: Path) -> None:
    model.save(tmp_path)  # gives the model the hash of a file; in memory it has none
    with pytest.raises(SettingsMismatch, match="model_sha256"):
        rediffuse.detect(PHOTO, model=tmp_path, detector=detector)


def test_a_detector_is_loaded_from_its_folder_or_from_its_runs(detector: Detector, tmp_path: Path) -> None:
    detector.save(tmp_path / "run" / "detector")
    for source in ("run", "run/detector"):
        assert rediffuse.load_detector(tmp_path / source).settings == detector.settings
    with pytest.raises(InputError, match=r"no detector: there is no detector\.json in it or in .*empty/detector"):
        rediffuse.load_detector(tmp_path / "empty")
