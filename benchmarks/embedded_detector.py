"""Print the figures of the embedded detector on test images, and those of its control, which uses no diffusion.

    python benchmarks/embedded_detector.py --data FOLDER

FOLDER holds `real/` and `generated/`; subfolders of `generated/` name the samplers.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from script import read_flags

from rediffuse.detection.detector import SUBFOLDER
from rediffuse.detection.evaluate import evaluation_table
from rediffuse.files import write_bytes
from rediffuse.records import dump
from rediffuse.training.detector import evaluate_detector
from rediffuse.zoo.model import load
from rediffuse.zoo.published import default_folder


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Evaluate a detector on images whose class is known."""

    data: Path
    """Folder with real/ and generated/."""
    model: str = "default"
    """The model the detector was trained with."""
    detector: Path | None = None
    """A folder that `rediffuse train detector` wrote; the embedded default if not given."""
    out: Path | None = None
    """JSON file for all figures."""
    batch_size: int = 32
    """Images per call of the network."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto takes a GPU where there is one."""


def main(args: Flags) -> None:
    model = load(args.model, device=args.device)
    folder = args.detector or default_folder() / SUBFOLDER
    evaluation = evaluate_detector(model, args.data, folder, batch_size=args.batch_size)
    print(evaluation_table(evaluation))
    for reason in evaluation.skipped:
        print(f"skipped {reason}")
    if args.out is not None:
        write_bytes(args.out, (json.dumps(dump(evaluation), indent=2) + "\n").encode())


if __name__ == "__main__":
    main(read_flags(Flags))
