"""`rediffuse eval robustness`: the figures of a detector after changes of all images."""

import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

from rediffuse.cli.console import bars
from rediffuse.cli.flags import MODEL, Argument, CommandFlags
from rediffuse.cli.paths import check_figure
from rediffuse.cli.result import Result
from rediffuse.errors import ConfigError, InputError, StorageError
from rediffuse.images.config import ChangeName
from rediffuse.images.limits import Decoding

if TYPE_CHECKING:
    from rediffuse.detection.robustness import Key, RobustnessRow

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EvalRobustnessFlags(Decoding, CommandFlags):
    """Measure a detector on images of known class, as they are and after changes of all images of both classes.

    DATA has the folders real/ and generated/. The changes are JPEG (quality 95 to 30), WebP (90 to 30), a reduction and
    a crop (to 90% to 50% of each side), blur (sigma 0.5 to 2 pixels), noise (sigma 1 to 8 levels) and a screenshot. In
    the screenshot a page shows the image at 75% of its size, the display enlarges the page by 1.25, 1.5 or 1.75, the
    screen is saved as JPEG of quality 85, and the page around the image is cut off.

    Every strength of a change takes as many network calls as to judge DATA once; the log says how many there are. With
    --out an interrupted call can be repeated: rows of the same detector and files are not computed again.
    Exit status: 0 done, 1 some images could not be read, 2 usage error.
    """

    data: Annotated[Path, Argument(metavar="DATA", positional=True)]
    """A folder with real/ and generated/."""
    detector: str = "default"
    """The folder of a `rediffuse train detector`, or the detector/ in it, or the embedded detector."""
    model: Annotated[str, MODEL] = "default"
    """The model the detector was trained with: a folder, a checkpoint, a published name, or the embedded default."""
    changes: tuple[ChangeName, ...] = get_args(ChangeName)
    """Measure these changes only. The unchanged images are always measured."""
    out: Path | None = None
    """Write the rows to this .csv file, each as soon as it is computed."""
    figure: Path | None = None
    """Draw AUC and error rates against the strength of each change into this .png, .svg or .pdf file."""
    force: bool = False
    """Replace a figure that exists, and a table with rows of another detector or of other files."""
    batch_size: int = 16
    """Images, or windows of images, per call of the network."""
    workers: int = min(4, os.cpu_count() or 1)
    """Threads that decode and change images."""
    device: str = "auto"
    """cpu, cuda, cuda:1 or mps; auto takes a GPU where there is one. offload, or offload:cuda:1, keeps the parts of a
    pipeline of diffusers in main memory, and only the part that computes on the GPU."""

    def __post_init__(self) -> None:
        if not self.changes:
            raise ConfigError(f"--changes: at least one of {', '.join(get_args(ChangeName))} is needed")


def run(args: EvalRobustnessFlags) -> Result:
    """The rows as a table; status 1 if an image could not be read."""
    _check_outputs(args)

    from rediffuse.detection.detector import load_detector
    from rediffuse.detection.judge import require_model
    from rediffuse.detection.labelled import find_labelled
    from rediffuse.detection.robustness import changes_of, digest_of, key_of, measure, robustness_table, write_rows
    from rediffuse.dire.reconstruct import network_calls
    from rediffuse.report.curves import write_figure
    from rediffuse.report.robustness import robustness_figure
    from rediffuse.zoo.model import load

    images = find_labelled(args.data, args.decoding)
    model = load(args.model, device=args.device)
    detector = load_detector(args.detector, device=model.device)
    require_model(model, detector)
    digest = digest_of(detector, images)
    wanted = changes_of(args.changes)
    rows = _finished(args, digest)
    if args.out is not None:
        write_rows(args.out, rows.values())  # before the work, so that an error of writing comes now
    missing = [change for change in wanted if key_of(change) not in rows]
    calls = len(missing) * len(images) * network_calls(model, detector.settings)
    LOGGER.info(
        "%d of %d rows are to be computed, each by judging %d images: %s network calls with one image or window each",
        *(len(missing), len(wanted), len(images), f"{calls:,}"),
    )
    stopped, written = None, {} if args.out is None else {"table": args.out}
    try:
        with bars() as progress:
            for change in missing:
                rows[key_of(change)] = measure(
                    model,
                    detector,
                    images,
                    change,
                    digest=digest,
                    batch_size=args.batch_size,
                    workers=args.workers,
                    progress=progress,
                )
                if args.out is not None:
                    write_rows(args.out, rows.values())
        if args.figure is not None:
            write_figure(args.figure, robustness_figure([rows[key_of(change)] for change in wanted]))
            written["figure"] = args.figure
    except (StorageError, KeyboardInterrupt) as error:
        stopped = error
    shown = [rows[key_of(change)] for change in wanted if key_of(change) in rows]
    num_read = shown[0].num_real + shown[0].num_generated if shown else len(images)
    return Result(
        text="\n".join([robustness_table(shown), *(f"{name}: {path}" for name, path in written.items())]),
        record={"rows": [asdict(row) for row in shown], **written},
        status=0 if num_read == len(images) else 1,
        stopped_by=stopped,
    )


def _finished(args: EvalRobustnessFlags, digest: str) -> "dict[Key, RobustnessRow]":
    """The rows in the table that are of the same detector and files, by change and strength."""
    from rediffuse.detection.robustness import read_rows

    if args.out is None or not args.out.exists():
        return {}
    rows = read_rows(args.out)
    same = {row.key: row for row in rows if row.digest == digest}
    if len(same) < len(rows) and not args.force:
        raise InputError(
            f"--out {args.out}: holds rows of another detector or of other files; --force replaces them, or give "
            "another file"
        )
    return same


def _check_outputs(args: EvalRobustnessFlags) -> None:
    """Raise the errors of writing the results that can be found before the work."""
    if args.out is not None and args.out.suffix.lower() != ".csv":
        raise ConfigError(f"--out {args.out}: a name that ends in .csv is needed")
    check_figure(args.figure, args.force)
