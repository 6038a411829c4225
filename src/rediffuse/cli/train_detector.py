"""`rediffuse train detector`: fit a detector, select it by validation, and report its test figures with its control."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from rediffuse.cli.console import bars
from rediffuse.cli.flags import FLAT, MODEL, Argument, CommandFlags
from rediffuse.cli.result import Result
from rediffuse.detection.config import FIVE_PERCENT, Limits
from rediffuse.records import dump
from rediffuse.training.config import LoopConfig
from rediffuse.training.detector_config import RESNET, DetectorTraining

LOGGER = logging.getLogger(__name__)

GROUPS = {
    "Usual": ("--model", "--features", "--maps", "--steps", "--depths", "--device", "--batch-size", "--workers"),
    "Reconstruction": ("--grid", "--clip", "--precision", "--crop", "--frequency"),
    "Selection and thresholds": ("--inverse-penalties", "--max-false-alarms", "--max-misses", "--unfamiliar-rate"),
}


@dataclass(frozen=True, kw_only=True)
class TrainDetectorFlags(DetectorTraining, CommandFlags):
    """Train a detector on reconstructions of real and generated images, and compare it with a control detector.

    The control uses only the images, without any reconstruction. The same command continues a stopped training.
    The flags that begin with --resnet are only for --features map, map_8bit and map_bands.
    """

    groups = GROUPS

    out: Path
    """Folder for the detector and its report; existing results in it are used again."""
    model: Annotated[str, MODEL] = "default"
    """Diffusion model: a model folder, a checkpoint, a published name, owner/name on the hub, or the embedded
    default."""
    device: str = "auto"
    """cpu, cuda, cuda:1 or mps; auto takes a GPU where there is one. offload, or offload:cuda:1, keeps the parts of a
    pipeline of diffusers in main memory, and only the part that computes on the GPU."""
    limits: Annotated[Limits, FLAT] = FIVE_PERCENT
    resnet: Annotated[LoopConfig, Argument(omit=("device",))] = RESNET
    """How a ResNet-50 is trained, on the device of the model."""


def run(args: TrainDetectorFlags) -> Result:
    """The figures of the detector and of its control on the test images."""
    from rediffuse.detection.detector import load_detector
    from rediffuse.detection.evaluate import evaluation_table
    from rediffuse.training.detector import train_detector
    from rediffuse.zoo.model import load

    model = load(args.model, device=args.device)
    resnet = replace(args.resnet, device="cpu" if model.device.type == "cpu" else "auto")
    with bars() as progress:
        evaluation = train_detector(replace(args, resnet=resnet), model, args.out, progress=progress)
    for reason in evaluation.skipped:
        LOGGER.warning("skipped: %s", reason)
    folder = args.out / "detector"
    num_calls = load_detector(folder).training["network_calls"]
    return Result(
        text=f"{evaluation_table(evaluation)}\ndetector: {folder}, {num_calls} network calls per image",
        record={**dump(evaluation), "detector": folder, "network_calls": num_calls},
    )
