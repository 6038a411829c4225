"""Reconstruct images, and judge the reconstructions."""

import logging
from collections.abc import Iterable, Iterator, Sized
from dataclasses import replace
from itertools import islice

from rediffuse.detection.detector import NO_NUMBER, Detector
from rediffuse.detection.stability import MILD, copies_of, with_copies
from rediffuse.detection.verdict import Evidence, JudgedCopy, Verdict
from rediffuse.dire.bands import radial_means
from rediffuse.dire.job import FileResult, reconstruct_files
from rediffuse.dire.settings import facts_of, require_same
from rediffuse.images.changes import ChangedImage
from rediffuse.images.find import FoundImage, MemoryImage
from rediffuse.models.config import BatchSize, PrecisionChoice
from rediffuse.zoo.model import DiffusionModel

LOGGER = logging.getLogger(__name__)


def judge(
    model: DiffusionModel,
    files: Iterable[FoundImage | MemoryImage | ChangedImage],
    detector: Detector,
    *,
    batch_size: BatchSize = "auto",
    workers: int = 2,
    num_files: int | None = None,
    precision: PrecisionChoice = "auto",
    explain: bool = True,
    evidence: bool = False,
) -> Iterator[Verdict]:
    """One verdict per file, in order; the verdict of a file that cannot be judged has a reason and no decision.

    Args:
        model: the model that the detector was trained with.
        files: from `images.find.find_images` or `gather_images`, or changed copies of these.
        detector: the detector; its settings are used for the reconstructions, except for an equal precision.
        batch_size: see `dire.job.reconstruct_files`.
        workers: see `dire.job.reconstruct_files`.
        num_files: see `dire.job.reconstruct_files`.
        precision: see `Detector.settings_on`.
        explain: compute the contributions of bands and windows; a detector with a ResNet-50 needs nine times the
            passes for them.
        evidence: also keep the evidence, which is large: do not keep it for many files.

    Returns:
        An iterator of verdicts.

    Raises:
        SettingsMismatch: at once, if the detector was trained with another model.
        ConfigError, InputError: see `dire.job.reconstruct_files`.
    """
    require_model(model, detector)
    settings = detector.settings_on(model.device, precision)
    results = reconstruct_files(
        model,
        files,
        settings,
        batch_size=batch_size,
        workers=workers,
        num_files=num_files,
        with_originals=evidence,
    )
    return (verdict(result, detector, explain=explain, evidence=evidence) for result in results)


def judge_with_copies(
    model: DiffusionModel,
    files: Iterable[FoundImage | MemoryImage],
    detector: Detector,
    *,
    batch_size: BatchSize = "auto",
    workers: int = 2,
    num_files: int | None = None,
    precision: PrecisionChoice = "auto",
    explain: bool = True,
    evidence: bool = False,
) -> Iterator[Verdict]:
    """As `judge`, and every image is judged again after each of the `stability.MILD` changes.

    The verdict on an image becomes `unsure` if a change reverses its decision; see `stability.with_copies`. A copy that
    cannot be judged, because it is too small, does not count. Images and copies share batches, and there are
    1 + len(MILD) times as many network calls. Arguments and errors are those of `judge`.
    """
    require_model(model, detector)
    if num_files is None:
        assert isinstance(files, Sized), "an iterator of files needs their number"
        num_files = len(files)
    each = (one for found in files for one in (found, *copies_of(found)))
    settings = detector.settings_on(model.device, precision)
    results = reconstruct_files(
        model,
        each,
        settings,
        batch_size=batch_size,
        workers=workers,
        num_files=num_files * (1 + len(MILD)),
        with_originals=evidence,
    )
    return _with_copies(results, detector, explain, evidence)


def require_model(model: DiffusionModel, detector: Detector) -> None:
    """Check that the detector was trained with this model.

    Raises:
        SettingsMismatch: it was trained with another model or image size; names both.
    """
    require_same(given=replace(detector.settings, **facts_of(model)), expected=detector.settings, owner="the detector")


def verdict(result: FileResult, detector: Detector, *, explain: bool = True, evidence: bool = False) -> Verdict:
    """The verdict on one file from its reconstruction, or from the reason why there is none.

    Args:
        result: from `dire.job.reconstruct_files`.
        detector: the detector.
        explain: see `judge`.
        evidence: see `judge`.

    Raises:
        SettingsMismatch: the reconstruction was made with other settings than the detector's.
    """
    if result.reconstruction is None:
        return Verdict(
            file=result.found.name,
            reason=result.reason,
            settings=detector.settings,
            detector_sha256=detector.sha256,
        )
    reconstruction = result.reconstruction
    probability, decision, reason = detector.judge(reconstruction)
    if reason == NO_NUMBER:
        return Verdict(
            file=result.found.name,
            reason=f"{result.found.source}: {reason}",
            settings=detector.settings,
            detector_sha256=detector.sha256,
        )
    left_out, thresholds = detector.left_out, detector.thresholds
    return Verdict(
        file=result.found.name,
        decision=decision,
        reason=reason,
        probability=probability,
        threshold=thresholds.generated,
        real_threshold=thresholds.real,
        real_bound=left_out.bound("real", probability, thresholds.max_false_alarms),
        generated_bound=left_out.bound("generated", probability, thresholds.max_misses),
        mean_dire=reconstruction.error.abs().mean().item(),
        bands=tuple(reconstruction.profile.energies.mean(dim=0).tolist()),
        coherences=tuple(reconstruction.profile.coherences.mean(dim=0).tolist()),
        contributions=tuple(detector.explain(reconstruction)[0].tolist()) if explain else (),
        windows=reconstruction.windows,
        window_contributions=tuple(detector.explain_windows(reconstruction).tolist()) if explain else (),
        settings=reconstruction.settings,
        detector_sha256=detector.sha256,
        sha256=result.meta.sha256 if result.meta else None,
        evidence=Evidence(
            x_0=reconstruction.x_0.numpy(),
            x_0_hat=reconstruction.x_0_hat.numpy(),
            powers=radial_means(reconstruction.profile.powers.mean(dim=0)).numpy(),
            original=result.original,
            meta=result.meta,
        )
        if evidence
        else None,
    )


def _with_copies(results: Iterator[FileResult], detector: Detector, explain: bool, evidence: bool) -> Iterator[Verdict]:
    for result in results:
        copies = []
        for copy in islice(results, len(MILD)):  # they follow the image
            assert isinstance(copy.found, ChangedImage)
            if copy.reconstruction is not None:
                probability, decision, reason = detector.judge(copy.reconstruction)
                if reason != NO_NUMBER:
                    copies.append(JudgedCopy(change=copy.found.change, probability=probability, decision=decision))
            elif result.reconstruction is not None:
                LOGGER.debug("no copy: %s", copy.reason)
        yield with_copies(verdict(result, detector, explain=explain, evidence=evidence), copies)
