"""Reconstruct images, and judge the reconstructions."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice

from rediffuse.detection.detector import NO_NUMBER, Detector
from rediffuse.detection.stability import MILD, copies_of, with_copies
from rediffuse.detection.verdict import Evidence, JudgedCopy, Verdict
from rediffuse.dire.bands import band_profile
from rediffuse.dire.job import FileResult, reconstruct_files
from rediffuse.dire.settings import require_same
from rediffuse.images.changes import ChangedImage
from rediffuse.images.find import FoundImage, MemoryImage
from rediffuse.zoo.model import DiffusionModel

LOGGER = logging.getLogger(__name__)


def judge(
    model: DiffusionModel,
    files: Sequence[FoundImage | MemoryImage | ChangedImage],
    detector: Detector,
    *,
    batch_size: int = 16,
    labels: Mapping[str, int] | None = None,
    workers: int = 2,
) -> Iterator[Verdict]:
    """One verdict per file, in order; the verdict of a file that cannot be judged has a reason and no decision.

    Args:
        model: the model that the detector was trained with.
        files: from `images.find.find_images` or `gather_images`, or changed copies of these.
        detector: the detector; its settings are used for the reconstructions.
        batch_size: see `dire.job.reconstruct_files`.
        labels: see `dire.job.reconstruct_files`.
        workers: see `dire.job.reconstruct_files`.

    Returns:
        An iterator of verdicts with their evidence, which is large: do not keep it for many files.

    Raises:
        SettingsMismatch: at once, if the detector was trained with another model.
        ConfigError, InputError: see `dire.job.reconstruct_files`.
    """
    require_model(model, detector)
    results = reconstruct_files(model, files, detector.settings, batch_size=batch_size, labels=labels, workers=workers)
    return (verdict(result, detector) for result in results)


def judge_with_copies(
    model: DiffusionModel,
    files: Sequence[FoundImage | MemoryImage],
    detector: Detector,
    *,
    batch_size: int = 16,
    labels: Mapping[str, int] | None = None,
    workers: int = 2,
) -> Iterator[Verdict]:
    """As `judge`, and every image is judged again after each of the `stability.MILD` changes.

    The verdict on an image becomes `unsure` if a change reverses its decision; see `stability.with_copies`. A copy that
    cannot be judged, because it is too small, does not count. Images and copies share batches, and there are
    1 + len(MILD) times as many network calls. Arguments and errors are those of `judge`.
    """
    require_model(model, detector)
    each = [one for found in files for one in (found, *copies_of(found))]
    results = reconstruct_files(model, each, detector.settings, batch_size=batch_size, labels=labels, workers=workers)
    return _with_copies(results, detector)


def require_model(model: DiffusionModel, detector: Detector) -> None:
    """Check that the detector was trained with this model.

    Raises:
        SettingsMismatch: it was trained with another model or image size; names both.
    """
    given = replace(detector.settings, image_size=model.image_size, model_sha256=model.provenance.sha256)
    require_same(given=given, expected=detector.settings, owner="the detector")


def verdict(result: FileResult, detector: Detector) -> Verdict:
    """The verdict on one file from its reconstruction, or from the reason why there is none.

    Raises:
        SettingsMismatch: the reconstruction was made with other settings than the detector's.
    """
    if result.reconstruction is None:
        return Verdict(file=result.found.name, reason=result.reason, settings=detector.settings)
    reconstruction = result.reconstruction
    probability, decision, reason = detector.judge(reconstruction)
    if reason == NO_NUMBER:
        return Verdict(file=result.found.name, reason=f"{result.found.source}: {reason}", settings=detector.settings)
    profile = band_profile(reconstruction.x_0, reconstruction.x_0_hat)
    return Verdict(
        file=result.found.name,
        decision=decision,
        reason=reason,
        probability=probability,
        threshold=detector.thresholds.generated,
        real_threshold=detector.thresholds.real,
        max_false_alarms=detector.thresholds.max_false_alarms,
        max_misses=detector.thresholds.max_misses,
        real_limit_is_for_unseen=detector.left_out.is_for_unseen("real"),
        generated_limit_is_for_unseen=detector.left_out.is_for_unseen("generated"),
        mean_dire=reconstruction.error.abs().mean().item(),
        bands=tuple(profile.energies.mean(dim=0).tolist()),
        coherences=tuple(profile.coherences.mean(dim=0).tolist()),
        contributions=tuple(detector.explain(reconstruction)[0].tolist()),
        windows=reconstruction.windows,
        window_contributions=tuple(detector.explain_windows(reconstruction).tolist()),
        settings=detector.settings,
        evidence=Evidence(
            x_0=reconstruction.x_0.numpy(), x_0_hat=reconstruction.x_0_hat.numpy(), picture=result.picture
        ),
    )


def _with_copies(results: Iterator[FileResult], detector: Detector) -> Iterator[Verdict]:
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
        yield with_copies(verdict(result, detector), copies)
