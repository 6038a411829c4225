"""`rediffuse eval detector`: the figures of a detector and of its control on images of known class."""

import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rediffuse.cli.console import bars
from rediffuse.cli.flags import MODEL, Argument, CommandFlags
from rediffuse.cli.paths import check_figure, check_report
from rediffuse.cli.result import Result
from rediffuse.errors import ConfigError
from rediffuse.images.limits import Decoding
from rediffuse.records import dump

if TYPE_CHECKING:
    from rediffuse.detection.evaluate import Judged
    from rediffuse.detection.verdict import Verdict

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EvalDetectorFlags(Decoding, CommandFlags):
    """Evaluate a detector on images of known class, and compare it with its control, which uses the images alone.

    The folders real, 0_real and nature hold real images, and generated, fake, 1_fake and ai generated ones, at any
    depth and in lower or upper case: so the data sets GenImage, CNNDetection and DiffusionForensics are read as they
    are. Beside real images without a folder of generated ones, every other folder is a generator. The folders above and
    below that of the class are the group of an image: a generator, a source of photographs. A CSV or Parquet file has
    the columns file (relative to its folder, or a URL), label (real or 0, generated or 1) and, optionally, group.

    First the files are audited as by `rediffuse audit`: what reveals the class, other than signs of generation. Exit
    status: 0 done, 1 some images could not be read, 2 usage error.
    """

    data: Annotated[Path, Argument(positional=True)]
    """A folder with images of both classes, or a CSV or Parquet file that lists them."""
    detector: str = "default"
    """The folder of a `rediffuse train detector`, or the detector/ in it, or the embedded detector."""
    model: Annotated[str, MODEL] = "default"
    """The model the detector was trained with: a folder, a checkpoint, a published name, or the embedded default."""
    figure: Path | None = None
    """Write ROC curves, and the errors of the decisions against their number, to this .png, .svg or .pdf file."""
    report: Path | None = None
    """Write a page with the figures, and the evidence for the verdict on every image, to this .html file."""
    force: bool = False
    """Replace a figure or a page that already exists."""
    batch_size: int = 16
    """Images, or windows of images, per call of the network."""
    workers: int = min(4, os.cpu_count() or 1)
    """Threads that read images."""
    device: str = "auto"
    """cpu, cuda, cuda:1 or mps; auto takes a GPU where there is one. offload, or offload:cuda:1, keeps the parts of a
    pipeline of diffusers in main memory, and only the part that computes on the GPU."""

    def __post_init__(self) -> None:
        for name, number in (("batch-size", self.batch_size), ("workers", self.workers)):
            if number < 1:
                raise ConfigError(f"--{name} {number}: at least 1 is needed")


def run(args: EvalDetectorFlags) -> Result:
    """The figures and the conclusion of the audit; status 1 if an image could not be read."""
    check_figure(args.figure, args.force)
    check_report(args.report, args.force)

    from rediffuse.detection.audit import AUDITED, audit, audit_labelled
    from rediffuse.detection.detector import load_control, load_detector
    from rediffuse.detection.evaluate import coverage, evaluate, evaluation_table, judge_labelled
    from rediffuse.detection.judge import require_model
    from rediffuse.detection.labelled import find_labelled
    from rediffuse.report.evaluation import evaluation_headline, evaluation_section, truth_of
    from rediffuse.report.page import Report
    from rediffuse.zoo.model import load

    images = find_labelled(args.data, args.decoding)
    model = load(args.model, device=args.device)
    detector = load_detector(args.detector, device=model.device)
    control = load_control(args.detector, device=model.device)
    require_model(model, detector)  # before the audit, which takes time
    of_name = {image.found.name: image for image in images}
    with Report(file=args.report, workers=args.workers) as report, bars() as progress:

        def show(verdict: "Verdict") -> None:
            report.add(verdict, truth_of(of_name[verdict.file], verdict))

        audited = audit(audit_labelled(images), max_files=AUDITED, workers=args.workers, progress=progress)
        judged = judge_labelled(
            model,
            images,
            detector,
            control,
            batch_size=args.batch_size,
            workers=args.workers,
            show=None if args.report is None else show,
            progress=progress,
        )
        evaluation = evaluate(judged)
        pages = report.write(
            headline=evaluation_headline(judged),
            sections=[evaluation_section(judged, evaluation, audited.line)],
        )
    for reason in judged.skipped:
        LOGGER.warning("skipped: %s", reason)
    for failure in report.failures:
        LOGGER.error("%s", failure)
    points = coverage(judged, detector.left_out)
    lines = [f"audit: {audited.line}", "", evaluation_table(evaluation)]
    record: dict[str, Any] = {
        "audit": audited.line,
        "can_carry_a_claim": audited.can_carry_a_claim,
        **dump(evaluation),
        "thresholds": dump(detector.thresholds),
        "coverage": [asdict(point) for point in points],
        "images": [_row(one) for one in judged.images],
    }
    if control is None:
        lines += ["", "there is no control in the folder of the detector"]
    if args.figure is not None:
        from rediffuse.report.curves import evaluation_figure, write_figure

        write_figure(args.figure, evaluation_figure(judged, evaluation, points, detector.thresholds))
        lines += ["", f"figure: {args.figure}"]
        record["figure"] = args.figure
    if pages:
        lines += ["", f"report: {args.report}"]
        record |= pages
    return Result(text="\n".join(lines), record=record, status=1 if judged.skipped or report.failures else 0)


def _row(one: "Judged") -> Mapping[str, Any]:
    return {
        "file": one.image.found.name,
        "label": one.image.label,
        "group": one.image.group,
        "format": one.codec,
        **asdict(one.detector),
        "control_probability": None if one.control is None else one.control.probability,
    }
