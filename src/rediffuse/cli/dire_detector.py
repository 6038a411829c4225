"""Conversion of a network of the original DIRE to a detector, for `rediffuse convert`."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from rediffuse.cli.calibrate import result
from rediffuse.cli.console import bars
from rediffuse.cli.flags import FLAT, MODEL, Argument
from rediffuse.cli.reconstruction import ReconstructionFlags
from rediffuse.cli.result import Result
from rediffuse.detection.config import FIVE_PERCENT, Limits
from rediffuse.dire.settings import Precision
from rediffuse.errors import ConfigError, InputError
from rediffuse.images.limits import Decoding

DETECTOR = (
    *("--model", "--data", "--max-false-alarms", "--max-misses", "--unfamiliar-rate", "--steps", "--depth", "--grid"),
    *("--clip", "--frequency", "--crop", "--solver", "--spacing"),
    *("--batch-size", "--workers", "--device", "--max-pixels"),
)
"""The flags of `DetectorFlags`, for a group of help."""


@dataclass(frozen=True, kw_only=True)
class DetectorFlags(Decoding):
    """Only for a ResNet-50 of the original DIRE: how its maps were made, and the images that it is calibrated by."""

    model: Annotated[str | None, MODEL] = None
    """The diffusion model whose maps it was trained on, such as lsun_bedroom or 256x256_diffusion_uncond. The maps must
    have 256 px, or --image-size if it was trained on maps of another size."""
    data: Annotated[Path | None, Argument(metavar="DATA")] = None
    """Images of known class to calibrate it by: a folder with real/ and generated/, or a CSV file, as for `rediffuse
    eval detector`. They must not be in its training data."""
    limits: Annotated[Limits, FLAT] = FIVE_PERCENT
    reconstruction: Annotated[ReconstructionFlags, FLAT] = field(default_factory=ReconstructionFlags)
    batch_size: int = 16
    """Images per call of the diffusion model."""
    workers: int = min(4, os.cpu_count() or 1)
    """Threads that decode images."""
    device: str = "auto"
    """cpu, cuda, cuda:1 or mps; auto takes a GPU where there is one."""


def convert_to_detector(
    source: Path, destination: Path, flags: DetectorFlags, *, map_size: int | None, precision: Precision, force: bool
) -> Result:
    """Write the detector, and report on its thresholds; status 1 if an image could not be read."""
    if flags.data is None or flags.model is None:
        raise ConfigError("--model: a detector needs the diffusion model whose maps it was trained on")
    if destination.exists() and not force:
        raise InputError(f"{destination}: exists already; --force replaces it")

    from rediffuse.detection.detector import check_detector_folder, save_with_control
    from rediffuse.detection.labelled import find_labelled
    from rediffuse.training.dire_detector import MAP_SIZE, convert_detector
    from rediffuse.zoo.model import load

    check_detector_folder(destination)
    images = find_labelled(flags.data, flags.decoding)
    model = load(flags.model, device=flags.device)
    with bars() as progress:
        calibrated = convert_detector(
            source,
            model,
            images,
            flags.reconstruction.settings(model, precision),
            map_size=map_size or MAP_SIZE,
            limits=flags.limits,
            batch_size=flags.batch_size,
            workers=flags.workers,
            progress=progress,
        )
    save_with_control(destination, calibrated.detector, control=None)
    return result(calibrated, destination)
