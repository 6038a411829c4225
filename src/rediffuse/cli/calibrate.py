"""`rediffuse calibrate`: choose the thresholds of a detector by one's own files."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rediffuse.cli.console import bars
from rediffuse.cli.flags import MODEL, Argument, CommandFlags
from rediffuse.cli.result import Result
from rediffuse.detection.config import FIVE_PERCENT, Limits
from rediffuse.errors import ConfigError, InputError
from rediffuse.images.limits import Decoding
from rediffuse.records import dump

if TYPE_CHECKING:
    from rediffuse.detection.calibrate import Calibrated, CalibratedClass

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CalibrateFlags(Decoding, CommandFlags):
    """Choose the thresholds of a detector by your own photographs, which it was not trained on.

    The result is the same detector with other thresholds: it calls at most a share --max-false-alarms of such
    photographs generated. A limit needs at least 1 / limit - 1 photographs, 19 for 5 %. Subfolders are groups (cameras,
    senders, years); with 19 groups or more, the limit holds for photographs of other groups too, otherwise for further
    photographs of the same groups. Exit status: 0 done, 1 some images could not be read, 2 usage error.
    """

    real: Annotated[tuple[str, ...], Argument(metavar="DIR")]
    """Folders of your photographs."""
    out: Annotated[Path, Argument(metavar="DIR")]
    """Folder for the calibrated detector, for `rediffuse detect --detector`."""
    generated: Annotated[tuple[str, ...], Argument(metavar="DIR")] = ()
    """Folders of generated images, which determine the threshold of real; without them the detector's own scores are
    kept."""
    detector: str = "default"
    """The folder of a `rediffuse train detector`, or the detector/ in it, or the embedded detector."""
    model: Annotated[str, MODEL] = "default"
    """The model the detector was trained with: a folder, a checkpoint, a published name, or the embedded default."""
    limits: Annotated[Limits, Argument(flat=True, omit=("unfamiliar_rate",))] = FIVE_PERCENT
    force: bool = False
    """Replace a detector that already exists."""
    batch_size: int = 16
    """Images, or windows of images, per call of the network."""
    workers: int = min(4, os.cpu_count() or 1)
    """Threads that decode images."""
    device: str = "auto"
    """cpu, cuda, cuda:1 or mps; auto takes a GPU where there is one. offload, or offload:cuda:1, keeps the parts of a
    pipeline of diffusers in main memory, and only the part that computes on the GPU."""

    def __post_init__(self) -> None:
        if not self.real:
            raise ConfigError("--real: at least one folder is needed")


def run(args: CalibrateFlags) -> Result:
    """Write the detector, and report on its thresholds; status 1 if an image could not be read."""
    if args.out.exists() and not args.force:
        raise InputError(f"--out {args.out}: already exists; --force replaces it")

    from rediffuse.detection.calibrate import calibrate
    from rediffuse.detection.detector import check_detector_folder, load_control, load_detector, save_with_control
    from rediffuse.zoo.model import load

    check_detector_folder(args.out)
    model = load(args.model, device=args.device)
    detector = load_detector(args.detector, device=model.device)
    control = load_control(args.detector, device=model.device)
    with bars() as progress:
        calibrated = calibrate(
            model,
            args.real,
            detector,
            generated=args.generated,
            limits=args.limits,
            decoding=args.decoding,
            batch_size=args.batch_size,
            workers=args.workers,
            progress=progress,
        )
    save_with_control(args.out, calibrated.detector, control)
    return result(calibrated, args.out)


def result(calibrated: "Calibrated", out: Path) -> Result:
    """The report on a detector that was written to `out`; status 1 if an image could not be read."""
    for reason in calibrated.skipped:
        LOGGER.warning("skipped: %s", reason)
    lines = [line for one in calibrated.classes for line in _lines(one)]
    if calibrated.auc is not None:
        lines.append(f"AUC on these images: {calibrated.auc}")
    return Result(
        text="\n".join([*lines, f"detector: {out}"]),
        record={
            "classes": [dump(one) for one in calibrated.classes],
            "auc": dump(calibrated.auc) if calibrated.auc else None,
            "thresholds": dump(calibrated.detector.thresholds),
            "skipped": calibrated.skipped,
            "detector": out,
        },
        status=1 if calibrated.skipped else 0,
    )


def _lines(one: "CalibratedClass") -> list[str]:
    from rediffuse.detection.calibrate import DECISIONS

    whose = "yours" if one.is_own else "left out in the training of the detector"
    groups = f"{one.num_groups} {'group' if one.num_groups == 1 else 'groups'}"
    called, side = ("generated", "from") if one.label == "real" else ("real", "below")
    holds = "images of unseen groups" if one.is_for_unseen else "further images of the same groups"
    lines = [
        f"{one.label}: {one.num_images} {'image' if one.num_images == 1 else 'images'} in {groups}, {whose}",
        f"  called {called} {side} probability {one.threshold:.4f}: at most {one.limit:.1%} of {holds}",
    ]
    if one.decisions is not None:
        width = max(map(len, DECISIONS))
        lines += [
            f"  {name:<{width}}  {part.value:.1%} [{part.low:.1%}, {part.high:.1%}]"
            for name, part in one.decisions.items()
        ]
    return lines
