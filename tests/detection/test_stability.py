"""A decision that a mild change of the image reverses is `unsure`: with a tiny model and a detector made by hand."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import rediffuse
from detection.tiny import thresholds, unsure_detector
from labelled_images import picture
from rediffuse.detection.detector import BETWEEN, Detector
from rediffuse.detection.judge import judge, judge_with_copies
from rediffuse.detection.stability import MILD, with_copies
from rediffuse.detection.verdict import Decision, JudgedCopy, Verdict
from rediffuse.errors import ConfigError
from rediffuse.images.find import FoundImage, MemoryImage
from rediffuse.zoo.model import DiffusionModel
from report.verdicts import judged, unjudged
from sampling.tiny import unet

IMAGES = [MemoryImage(np.asarray(picture(seed)), f"image {seed}") for seed in range(2)]
JPEG, REDUCTION, WEBP = MILD


@pytest.fixture(scope="module")
def model() -> DiffusionModel:
    return unet()


@pytest.fixture(scope="module")
def detector(model: DiffusionModel) -> Detector:
    return unsure_detector(model)


def copies(*decisions: Decision) -> list[JudgedCopy]:
    return [
        JudgedCopy(change=change, probability=0.5, decision=decision)
        for change, decision in zip(MILD, decisions, strict=True)
    ]


@pytest.mark.parametrize(
    ("own", "others", "decision", "reason"),
    [
        ("generated", ("generated", "generated", "generated"), "generated", None),
        ("generated", ("unsure", "unsure", "unsure"), "generated", None),
        ("real", ("real", "unsure", "real"), "real", None),
        (
            "generated",
            ("real", "generated", "unsure"),
            "unsure",
            "the decision changes to real after JPEG compression of quality 75",
        ),
        (
            "real",
            ("real", "generated", "generated"),
            "unsure",
            "the decision changes to generated after a reduction to 75% of the size and after WebP compression of "
            "quality 80",
        ),
        ("unsure", ("real", "generated", "real"), "unsure", "between the thresholds"),
    ],
)
def test_an_opposite_decision_makes_the_verdict_unsure_and_an_unsure_one_does_not(
    own: Decision, others: Sequence[Decision], decision: Decision, reason: str | None
) -> None:
    before = judged("a.png", own)
    after = with_copies(before, copies(*others))
    assert (after.decision, after.reason) == (decision, reason)
    assert after == replace(before, decision=decision, reason=reason, copies=tuple(copies(*others)))
    assert after.evidence is before.evidence


def test_a_file_that_cannot_be_judged_stays_as_it_is() -> None:
    assert with_copies(unjudged("a.png"), []) == unjudged("a.png")


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_an_image_and_its_copies_are_judged_as_each_of_them_alone(
    model: DiffusionModel, detector: Detector, batch_size: int
) -> None:
    stable = list(judge_with_copies(model, IMAGES, detector, batch_size=batch_size, evidence=True))
    assert [verdict.file for verdict in stable] == ["image 0", "image 1"]
    for image, verdict, own in zip(IMAGES, stable, judge(model, IMAGES, detector, evidence=True), strict=True):
        assert isinstance(image.image, np.ndarray)
        changed = [MemoryImage(change.apply(image.image), str(change)) for change in MILD]
        alone = judge(model, changed, detector)
        assert verdict.probability == pytest.approx(own.probability, abs=1e-5)
        assert [copy.change for copy in verdict.copies] == list(MILD)
        for copy, expected in zip(verdict.copies, alone, strict=True):
            assert copy.probability == pytest.approx(expected.probability, abs=1e-5)
            assert copy.decision == expected.decision
        assert verdict.evidence is not None
        assert own.evidence is not None
        np.testing.assert_allclose(verdict.evidence.x_0_hat, own.evidence.x_0_hat, atol=1e-4)


def batch_sizes(model: DiffusionModel, verdicts: Iterator[Verdict]) -> list[int]:
    """The numbers of images in the network calls."""
    sizes: list[int] = []
    hook = model.network.register_forward_pre_hook(lambda network, given: sizes.append(len(given[0])))
    try:
        list(verdicts)
    finally:
        hook.remove()
    return sizes


def test_copies_of_many_images_fill_batches_together(model: DiffusionModel, detector: Detector) -> None:
    for files, num_files in ((IMAGES, None), (iter(IMAGES), 2)):
        sizes = batch_sizes(model, judge_with_copies(model, files, detector, batch_size=5, num_files=num_files))
        assert sizes == [4] * 4  # two images with three copies each, in two batches of two network calls


def test_batches_are_those_of_the_whole_job_of_which_files_are_left(model: DiffusionModel, detector: Detector) -> None:
    for judge_images in (judge, judge_with_copies):
        for left in (iter(IMAGES[:1]), IMAGES[:1]):
            sizes = batch_sizes(model, judge_images(model, left, detector, batch_size=5, num_files=100))
            assert sizes == [5] * 2  # one padded batch of two network calls


def test_a_decision_that_a_copy_reverses_is_unsure_for_that_reason(model: DiffusionModel, detector: Detector) -> None:
    [plain] = judge_with_copies(model, IMAGES[:1], detector)
    probabilities = sorted([plain.probability or 0, *(copy.probability for copy in plain.copies)])
    assert probabilities[0] < probabilities[-1]
    middle = (probabilities[0] + probabilities[-1]) / 2
    decided = replace(detector, thresholds=thresholds(middle, middle))
    [own] = judge(model, IMAGES[:1], decided)
    [stable] = judge_with_copies(model, IMAGES[:1], decided)
    assert own.decision in ("real", "generated")
    assert stable.decision == "unsure"
    assert stable.probability == pytest.approx(own.probability, abs=1e-5)
    reversing = [copy.change for copy in stable.copies if copy.decision != own.decision]
    assert str(stable.reason).endswith(" and after ".join(map(str, reversing)))


def test_a_copy_that_is_too_small_is_left_out(model: DiffusionModel) -> None:
    windowed = unsure_detector(model, crop="windows:2")
    small = MemoryImage(np.asarray(picture(0, 20, 20)), "small")
    verdicts = list(judge_with_copies(model, [small, *IMAGES], windowed))
    assert [[copy.change for copy in verdict.copies] for verdict in verdicts] == [[JPEG, WEBP], [*MILD], [*MILD]]
    assert verdicts[0].reason == BETWEEN


@pytest.mark.parametrize("judge_images", [judge, judge_with_copies])
def test_verdicts_are_explained_and_keep_no_evidence_unless_told_otherwise(
    model: DiffusionModel, detector: Detector, judge_images: Callable[..., Iterator[Verdict]]
) -> None:
    [usual] = judge_images(model, IMAGES[:1], detector)
    [bare] = judge_images(model, IMAGES[:1], detector, explain=False, evidence=True)
    assert len(usual.contributions) == 8
    assert usual.evidence is None
    assert bare.contributions == ()
    assert bare.evidence is not None
    assert bare.evidence.original is not None


@pytest.mark.parametrize("judge_images", [judge, judge_with_copies])
def test_images_are_judged_in_the_given_precision(
    model: DiffusionModel, detector: Detector, judge_images: Callable[..., Iterator[Verdict]]
) -> None:
    accepting = replace(detector, equal_precisions=("bf16",))
    [verdict] = judge_images(model, IMAGES[:1], accepting, precision="bf16")
    assert verdict.settings == replace(detector.settings, precision="bf16")
    with pytest.raises(ConfigError, match="precision=fp16"):
        judge_images(model, IMAGES[:1], accepting, precision="fp16")


def test_an_unreadable_file_has_its_reason_and_no_copies(
    model: DiffusionModel, detector: Detector, tmp_path: Path
) -> None:
    (tmp_path / "words.png").write_text("no image")
    words = FoundImage(tmp_path / "words.png", "words.png")
    stable = list(judge_with_copies(model, [words, *IMAGES], detector))
    assert stable[0] == next(judge(model, [words], detector))
    assert [verdict.judged for verdict in stable] == [False, True, True]


def test_copies_get_the_class_of_their_image() -> None:
    model = unet(num_classes=3)
    detector = unsure_detector(model)
    images = [replace(image, label=label) for image, label in zip(IMAGES, (2, 0), strict=True)]
    for image, verdict in zip(images, judge_with_copies(model, images, detector), strict=True):
        assert isinstance(image.image, np.ndarray)
        changed = replace(image, image=JPEG.apply(image.image))
        [expected] = judge(model, [changed], detector)
        assert verdict.copies[0].probability == pytest.approx(expected.probability, abs=1e-5)


def test_detect_judges_copies_where_it_is_asked_to(model: DiffusionModel, detector: Detector) -> None:
    pixels = np.asarray(picture(0))
    [plain] = rediffuse.detect(pixels, model=model, detector=detector)
    [stable] = rediffuse.detect(pixels, model=model, detector=detector, stability=True)
    assert plain.copies == ()
    assert [copy.change for copy in stable.copies] == list(MILD)
    assert isinstance(stable, Verdict)
