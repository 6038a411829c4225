"""A verdict holds the results of the detector and the reconstruction, and none of them without a reconstruction."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detection.conftest import SETTINGS
from detection.tiny import LEFT_OUT, thresholds
from golden_values import fill
from rediffuse.detection.calibration import Calibration
from rediffuse.detection.detector import BETWEEN, NO_NUMBER, UNFAMILIAR, Detector
from rediffuse.detection.familiarity import Familiarity
from rediffuse.detection.features import FEATURES, feature_set
from rediffuse.detection.judge import judge, verdict
from rediffuse.detection.scorers import BandScorer
from rediffuse.diffusion.config import ProcessConfig
from rediffuse.dire.bands import band_profile
from rediffuse.dire.job import FileMeta, FileResult, load_file
from rediffuse.dire.reconstruct import reconstruct
from rediffuse.dire.settings import DireSettings
from rediffuse.errors import SettingsMismatch
from rediffuse.images.find import FoundImage, find_images
from rediffuse.images.original import Original
from rediffuse.images.windows import Window
from rediffuse.models.config import UNetConfig
from rediffuse.models.unet import UNetModel
from rediffuse.zoo.model import DiffusionModel, Provenance

FOUND = FoundImage(Path("in/sub/a.png"), "sub/a.png")


def detector(settings: DireSettings, limit: float = np.inf) -> Detector:
    """A detector that compares the errors of the lowest and the highest band; images have different distances."""
    count = len(FEATURES["bands"].features)
    weight = np.zeros(count)
    weight[[0, 7]] = 0.3, -0.2
    return Detector(
        scorer=BandScorer(
            input=FEATURES["bands"], mean=np.full(count, -3.0), scale=np.full(count, 2.0), weight=weight, offset=0.1
        ),
        familiarity=Familiarity(centres=np.zeros((2, count)), precision=np.eye(count), limit=limit),
        settings=settings,
        calibration=Calibration(slope=2, offset=-0.1),
        thresholds=thresholds(0.4, 0.6),
        left_out=LEFT_OUT,
        training={},
    )


def by_windows(settings: DireSettings) -> Detector:
    """The same for images of several windows, with weights of its own for every feature."""
    features = feature_set("bands", settings)
    count = len(features.features)
    scorer = BandScorer(
        input=features, mean=np.zeros(count), scale=np.ones(count), weight=np.linspace(-0.2, 0.3, count), offset=0.1
    )
    familiarity = Familiarity(centres=np.zeros((2, count)), precision=np.eye(count))
    return dataclasses.replace(detector(settings), scorer=scorer, familiarity=familiarity)


def not_a_number(one: Detector) -> BandScorer:
    assert isinstance(one.scorer, BandScorer)
    return dataclasses.replace(one.scorer, offset=float("nan"))


def test_a_verdict_says_what_the_detector_and_the_reconstruction_say(make):
    reconstruction = make(torch.ones(1))
    one = detector(reconstruction.settings)
    said = verdict(FileResult(found=FOUND, reconstruction=reconstruction), one, evidence=True)
    profile = band_profile(reconstruction.x_0, reconstruction.x_0_hat)
    probability = float(one.probabilities(reconstruction)[0])
    assert (said.file, said.settings) == ("sub/a.png", reconstruction.settings)
    assert (said.probability, said.decision) == (probability, one.thresholds.decide(probability))
    assert (said.threshold, said.real_threshold) == (0.6, 0.4)
    assert said.real_bound == LEFT_OUT.bound("real", probability, 0.05)
    assert said.generated_bound == LEFT_OUT.bound("generated", probability, 0.1)
    assert said.mean_dire == pytest.approx((reconstruction.x_0 - reconstruction.x_0_hat).abs().mean().item())
    assert said.bands == tuple(profile.energies[0].tolist())
    assert said.coherences == tuple(profile.coherences[0].tolist())
    assert said.contributions == tuple(one.explain(reconstruction)[0])
    assert said.evidence is not None
    np.testing.assert_array_equal(said.evidence.x_0, reconstruction.x_0)
    np.testing.assert_array_equal(said.evidence.x_0_hat, reconstruction.x_0_hat)


def test_without_explanation_and_evidence_a_verdict_is_the_same(make):
    reconstruction = make(torch.ones(1))
    result = FileResult(found=FOUND, reconstruction=reconstruction)
    full, bare = (
        verdict(result, detector(reconstruction.settings), explain=wanted, evidence=wanted) for wanted in (True, False)
    )
    assert (bare.contributions, bare.window_contributions, bare.evidence) == ((), (), None)
    assert dataclasses.replace(full, contributions=(), evidence=None) == bare
    usual = verdict(result, detector(reconstruction.settings))
    assert (usual, usual.evidence) == (full, None)  # explained, without evidence


def test_the_error_by_band_is_computed_once_for_an_image(make, monkeypatch: pytest.MonkeyPatch):
    calls = []
    monkeypatch.setattr(
        "rediffuse.dire.reconstruct.band_profile", lambda *images: calls.append(1) or band_profile(*images)
    )
    reconstruction = make(torch.ones(1))
    said = verdict(FileResult(found=FOUND, reconstruction=reconstruction), detector(reconstruction.settings))
    assert said.contributions
    assert len(calls) == 1


def test_a_verdict_names_its_detector_also_where_there_is_no_decision(make):
    reconstruction = make(torch.ones(1))
    one = dataclasses.replace(detector(reconstruction.settings), sha256="ab" * 32)
    broken = dataclasses.replace(one, scorer=not_a_number(one))
    lost = FileResult(found=FOUND, reason="in/sub/a.png: is empty")
    judged = FileResult(found=FOUND, reconstruction=reconstruction)
    for result, judge_of in ((judged, one), (judged, broken), (lost, one)):
        said = verdict(result, judge_of)
        assert (said.file, said.detector_sha256, said.settings) == ("sub/a.png", "ab" * 32, reconstruction.settings)


def test_evidence_holds_the_original_and_the_facts_of_the_file(make):
    reconstruction = make(torch.ones(1))
    original = Original(pixels=np.zeros((20, 30, 3), np.uint8), size=(30, 20))
    meta = FileMeta(sha256="ef" * 32, codec="PNG", size=(30, 20))
    result = FileResult(found=FOUND, reconstruction=reconstruction, original=original, meta=meta)
    said = verdict(result, detector(reconstruction.settings), evidence=True)
    assert said.evidence is not None
    assert said.evidence.original is original
    assert said.evidence.meta is meta
    assert said.sha256 == meta.sha256


def test_a_verdict_on_windows_has_their_places_and_the_mean_of_their_bands(make):
    settings = dataclasses.replace(SETTINGS, crop="windows:2")
    windows = (Window(0, 8, 16), Window(16, 0, 16))
    image = dataclasses.replace(make(torch.tensor([0, 1]), settings=settings), windows=windows)
    one = by_windows(settings)
    said = verdict(FileResult(found=FOUND, reconstruction=image), one)
    assert said.windows == windows
    assert said.window_contributions == tuple(one.explain_windows(image).tolist()) != ()
    assert verdict(FileResult(found=FOUND, reconstruction=image), one, explain=False).window_contributions == ()
    profile = band_profile(image.x_0, image.x_0_hat)
    assert said.bands == pytest.approx(profile.energies.mean(dim=0).tolist())
    assert said.coherences == pytest.approx(profile.coherences.mean(dim=0).tolist())


@pytest.mark.parametrize(
    ("limit", "pair", "expected"),
    [
        (np.inf, (0.0, 0.0), ("generated", None)),
        (np.inf, (1.0, 1.0), ("real", None)),
        (np.inf, (0.0, 1.0), ("unsure", BETWEEN)),
        (0.0, (0.0, 0.0), ("unsure", UNFAMILIAR)),
    ],
)
def test_a_verdict_is_unsure_with_its_reason(make, limit, pair, expected):
    reconstruction = make(torch.ones(1))
    one = dataclasses.replace(detector(reconstruction.settings, limit), thresholds=thresholds(*pair))
    said = verdict(FileResult(found=FOUND, reconstruction=reconstruction), one)
    assert (said.decision, said.reason) == expected


def test_a_file_without_reconstruction_gets_its_reason_and_no_decision(make):
    settings = make(torch.ones(1)).settings
    said = verdict(FileResult(found=FOUND, reason="in/sub/a.png: is empty"), detector(settings))
    told = {field.name for field in dataclasses.fields(said) if getattr(said, field.name) not in (None, ())}
    assert told == {"file", "reason", "settings"}
    assert (said.file, said.reason, said.settings) == ("sub/a.png", "in/sub/a.png: is empty", settings)


def test_every_file_is_judged_in_order_with_the_class_that_it_was_given(tmp_path: Path):
    for index in range(3):
        Image.fromarray(np.full((16, 16, 3), 80 * index, np.uint8)).save(tmp_path / f"{index}.png")
    (tmp_path / "1.png").write_text("no image")
    config = UNetConfig(image_size=16, model_channels=32, num_res_blocks=1, channel_mult=(1, 1), num_classes=3)
    model = DiffusionModel(
        network=fill(UNetModel(config)),
        process_config=ProcessConfig(schedule="cosine", variance="fixed_large"),
        provenance=Provenance(source="test", sha256="0" * 64),
    )
    one = detector(DireSettings.for_model(model, steps=2))
    labels = (2, 0, 1)
    files = [
        dataclasses.replace(found, label=label) for found, label in zip(find_images([tmp_path]), labels, strict=True)
    ]
    classes: list[int] = []
    counting = model.network.register_forward_pre_hook(
        lambda _, args, kwargs: classes.extend(kwargs["y"].tolist()), with_kwargs=True
    )
    verdicts = list(judge(model, files, one, batch_size=1, workers=1))
    counting.remove()
    assert sorted(classes) == [1] * 4 + [2] * 4  # two steps in each direction
    assert [(said.file, said.judged) for said in verdicts] == [("0.png", True), ("1.png", False), ("2.png", True)]
    for said, found in zip(verdicts, files, strict=True):
        if said.judged:
            x_0 = load_file(found, one.settings).x_0
            assert x_0 is not None
            alone = reconstruct(model, x_0, one.settings, labels=[found.label or 0])
            assert said.mean_dire == pytest.approx(alone.error.abs().mean().item(), rel=1e-5)
    for wrong in ({"model_sha256": "1" * 64}, {"image_size": 8}):
        with pytest.raises(SettingsMismatch, match=f"^the detector has other settings: {next(iter(wrong))}="):
            judge(model, [], dataclasses.replace(one, settings=dataclasses.replace(one.settings, **wrong)))


def test_a_file_whose_score_is_not_a_number_is_not_judged(make):
    reconstruction = make(torch.ones(1))
    one = detector(reconstruction.settings)
    broken = dataclasses.replace(one, scorer=not_a_number(one))
    said = verdict(FileResult(found=FoundImage(Path("a.png"), "a.png"), reconstruction=reconstruction), broken)
    assert (said.judged, said.probability, said.reason) == (False, None, f"a.png: {NO_NUMBER}")
    assert one.decide(float("nan"), 0.0) == one.decide(0.9, float("nan")) == ("unsure", NO_NUMBER)
