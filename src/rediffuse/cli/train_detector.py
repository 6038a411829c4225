"""`rediffuse train detector`: fit a detector, choose by validation, and report on test images beside its control."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from rediffuse.training.detector_config import DetectorTraining


@dataclass(frozen=True, kw_only=True)
class TrainDetectorFlags(DetectorTraining):
    """Train a detector on reconstructions of real and generated images."""

    depths: Annotated[tuple[int, ...], tyro.conf.arg(aliases=("--depth",))] = DetectorTraining.depths
    """How many of the steps are walked; with several, validation chooses. `steps` is full depth."""
    out: Path
    """Folder for the detector and its report; what is done there already is not done again."""
    model: str = "default"
    """Diffusion model: a name from `rediffuse models`, or a folder or file."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto takes a GPU where there is one."""


def run(args: TrainDetectorFlags) -> int:
    """Print the figures on the test images, the control's beside the detector's."""
    from rediffuse.detection.evaluate import evaluation_table
    from rediffuse.training.detector import train_detector
    from rediffuse.zoo.model import load

    evaluation = train_detector(args, load(args.model, device=args.device), args.out)
    print(evaluation_table(evaluation))
    for reason in evaluation.skipped:
        print(f"skipped {reason}")
    print(f"detector: {args.out / 'detector'}")
    return 0
