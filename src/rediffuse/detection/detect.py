"""Judge images with a model and a detector: `rediffuse.detect`."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch

from rediffuse.detection.detector import Detector, load_detector
from rediffuse.detection.judge import judge, judge_with_copies
from rediffuse.detection.verdict import Verdict
from rediffuse.images.find import FoundImage, ImageLike, MemoryImage, gather_images
from rediffuse.images.limits import Limits
from rediffuse.models.config import BatchSize, PrecisionChoice
from rediffuse.progress import Progress, counted, unobserved
from rediffuse.zoo.model import DiffusionModel, load
from rediffuse.zoo.published import DEFAULT


def detect(
    images: ImageLike | Sequence[ImageLike],
    *,
    model: str | Path | DiffusionModel = DEFAULT,
    detector: str | Path | Detector = DEFAULT,
    max_false_alarms: float | None = None,
    max_misses: float | None = None,
    stability: bool = False,
    batch_size: BatchSize = "auto",
    workers: int = 2,
    device: torch.device | str = "auto",
    max_pixels: int = Limits.max_pixels,
    precision: PrecisionChoice = "auto",
    evidence: bool = False,
    progress: Progress = unobserved,
) -> list[Verdict]:
    """Judge images: real, generated or unsure. `rediffuse detect` gives the same verdicts.

    Args:
        images: one or several; each is a path (a file, a folder that is searched recursively, or a glob pattern), a
            Pillow image, or an array, uint8 (H, W, 3), RGB. An array (N, H, W, 3) is N images.
        model: the diffusion model that the detector was trained with: a loaded model, or an argument of `load`.
        detector: a loaded detector, or an argument of `load_detector`.
        max_false_alarms: largest share of photographs that may be called generated; None is the detector's own limit.
        max_misses: largest share of generated images that may be called real; None is the detector's own limit.
        stability: also judge copies of each image after JPEG compression, a reduction and WebP compression
            (`Verdict.copies`), at four times the network calls. An image whose decision one of them reverses is
            `unsure`.
        batch_size: images, or windows of images, per call of the network, at least 1; `"auto"` is 16 for short jobs,
            and for long ones the fastest number by a short measurement.
        workers: threads that decode, at least 1.
        device: the device of a model that is given by name; `"auto"` is the machine's accelerator, or the CPU if it
            has none.
        max_pixels: the largest file that is decoded; see `images.limits.Limits.for_pixels`.
        precision: number format inside the network; `"auto"` is the fastest one on the device for which the detector
            was shown to give equal verdicts.
        evidence: keep the network's input, its reconstruction and a small copy of the image in each verdict (6 MiB at
            512 px).
        progress: called after each image with the number of judged images.

    Returns:
        One verdict per image, in order. `Verdict.file` is the file's name, or for an image in memory its position in
        `images`, counted from 0: `image 0`. An image that cannot be judged has no decision, and a reason.

    Raises:
        InputError: a path does not exist, a pattern matches nothing, a folder holds no images, or there is no such
            model or detector.
        SettingsMismatch: the detector was trained with another model.
        CheckpointError, ConfigError, FetchError: see `load` and `load_detector`; a number is below 1, or a limit is
            smaller than the detector's left-out scores support.
    """
    found = gather_images(images, Limits.for_pixels(max_pixels))
    verdicts = detect_each(
        found,
        model=model,
        detector=detector,
        max_false_alarms=max_false_alarms,
        max_misses=max_misses,
        stability=stability,
        batch_size=batch_size,
        workers=workers,
        device=device,
        precision=precision,
        explain=True,
        evidence=evidence,
    )
    return list(counted(verdicts, "detect", len(found), progress))


def detect_each(
    found: Iterable[FoundImage | MemoryImage],
    *,
    model: str | Path | DiffusionModel,
    detector: str | Path | Detector,
    max_false_alarms: float | None,
    max_misses: float | None,
    stability: bool,
    batch_size: BatchSize,
    workers: int,
    device: torch.device | str,
    precision: PrecisionChoice,
    explain: bool,
    evidence: bool,
    num_files: int | None = None,
) -> Iterator[Verdict]:
    """As `detect`, for images of `images.find`: yields verdicts as they are computed.

    An iterator of images needs `num_files`: see `dire.job.reconstruct_files`. Without `explain` the verdicts have no
    contributions of bands and windows, which a table or a report shows.

    The model and the detector are loaded and checked before the first verdict.
    """
    if not isinstance(model, DiffusionModel):
        model = load(model, device=device)
    if not isinstance(detector, Detector):
        detector = load_detector(detector, device=model.device)
    if max_false_alarms is not None or max_misses is not None:
        detector = detector.with_limits(max_false_alarms, max_misses)
    judge_all = judge_with_copies if stability else judge
    return judge_all(
        model,
        found,
        detector,
        batch_size=batch_size,
        workers=workers,
        precision=precision,
        explain=explain,
        evidence=evidence,
        num_files=num_files,
    )
