"""`rediffuse detect`: judge image files, and write tables and reports."""

import contextlib
import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from rediffuse.cli.console import track
from rediffuse.cli.flags import MODEL, PATHS, CommandFlags
from rediffuse.cli.paths import check_free, check_report, expand_stdin
from rediffuse.cli.result import Result
from rediffuse.errors import InputError
from rediffuse.images.limits import Limits
from rediffuse.models.config import PrecisionChoice

STDOUT = Path("-")
LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DetectFlags(CommandFlags):
    """Judge image files: real, generated or unsure, each with a probability and a reason.

    Exit status: 0 all files were judged, 1 some were not, 2 usage error.
    """

    paths: Annotated[tuple[str, ...], PATHS]
    """Image files, folders (searched recursively) or glob patterns; - reads paths from standard input."""
    out: Path | None = None
    """Write the verdicts to this .csv, .json or .parquet file; - writes CSV to standard output instead of the table."""
    report: Path | None = None
    """Write a page with the evidence for every verdict to this .html file, which holds its pictures."""
    evidence: Path | None = None
    """Folder for the same page as index.html, with the pictures beside it; for many images."""
    model: Annotated[str, MODEL] = "default"
    """The model the detector was trained with: a folder, a checkpoint, a published name, or the embedded default."""
    detector: str = "default"
    """The folder of a `rediffuse train detector`, or the detector/ in it, or the embedded detector."""
    max_false_alarms: float | None = None
    """Largest share of photographs that may be called generated; moves the threshold of the detector. A smaller share
    makes more files unsure."""
    max_misses: float | None = None
    """Largest share of generated images that may be called real; moves the other threshold."""
    stability: bool = False
    """Also judge every image after three mild changes (JPEG of quality 75, a reduction to 75% of the size, WebP of
    quality 80); where one of them reverses the decision, it becomes unsure. Takes four times the network calls."""
    batch_size: int = 16
    """Images, or windows of images, per call of the network."""
    workers: int = min(4, os.cpu_count() or 1)
    """Threads that decode images, and threads that make pictures of a report."""
    device: str = "auto"
    """cpu, cuda, cuda:1 or mps; auto takes a GPU where there is one. offload, or offload:cuda:1, keeps the parts of a
    pipeline of diffusers in main memory, and only the part that computes on the GPU."""
    max_pixels: int = Limits.max_pixels
    """Largest file that is decoded, in pixels. Each file may take 5 s of CPU time and 512 MiB of memory; with a larger
    number, proportionally more."""
    precision: PrecisionChoice = "auto"
    """Number format inside the network; auto is the fastest one here for which the detector was shown to give equal
    verdicts."""
    force: bool = False
    """Replace a table or a page that already exists."""


def run(args: DetectFlags) -> Result:
    """The table of verdicts, and the written files; status 1 if a file could not be judged or written."""
    from rediffuse.files import claim

    _check_outputs(args)
    with contextlib.nullcontext() if args.evidence is None else claim(args.evidence):
        return _judge(args)


def _judge(args: DetectFlags) -> Result:
    from rediffuse.images.find import find_images
    from rediffuse.report.tables import csv_text, text_table, write_table
    from rediffuse.report.words import summary

    files = find_images(expand_stdin(args.paths), Limits.for_pixels(args.max_pixels))

    from rediffuse.detection.detect import detect_each
    from rediffuse.report.page import Report

    has_report = args.report is not None or args.evidence is not None
    found = detect_each(
        files,
        model=args.model,
        detector=args.detector,
        max_false_alarms=args.max_false_alarms,
        max_misses=args.max_misses,
        stability=args.stability,
        batch_size=args.batch_size,
        workers=args.workers,
        device=args.device,
        precision=args.precision,
        explain=has_report or args.json or args.out is not None,
        evidence=has_report,
    )
    verdicts, notes, stopped = [], [], None
    with Report(file=args.report, folder=args.evidence, workers=args.workers) as report:
        try:
            for verdict in track(found, len(files)):
                verdicts.append(replace(verdict, evidence=None))
                report.add(verdict)
        except KeyboardInterrupt as error:  # the verdicts until then are not lost
            stopped = error
            notes = [f"The work was interrupted: {len(verdicts)} of {len(files)} images were judged."]
        pages = report.write(notes=notes)
    for failure in report.failures:
        LOGGER.error("%s", failure)

    lines = [text_table(verdicts), "", summary(verdicts)]
    written: dict[str, Path] = {}
    if args.out not in (None, STDOUT):
        write_table(args.out, verdicts)
        written["table"] = args.out
    written |= pages
    lines += [f"{name}: {path}" for name, path in written.items()]
    if args.out == STDOUT:
        LOGGER.info("%s", summary(verdicts))
    return Result(
        text=csv_text(verdicts).removesuffix("\n") if args.out == STDOUT else "\n".join(lines),
        record={"verdicts": [verdict.to_row() for verdict in verdicts], **written},
        status=1 if report.failures or not all(verdict.judged for verdict in verdicts) else 0,
        stopped_by=stopped,
    )


def _check_outputs(args: DetectFlags) -> None:
    """Raise the errors of writing the results that can be found before the work."""
    from rediffuse.report.tables import check_table_path

    if args.out not in (None, STDOUT):
        check_table_path(args.out)
        if args.out.is_dir():
            raise InputError(f"--out {args.out}: is a folder; give a file in it")
        check_free("--out", args.out, args.out, args.force)
    check_report(args.report, args.force)
    if args.evidence is not None:
        if args.evidence.exists() and not args.evidence.is_dir():
            raise InputError(f"--evidence {args.evidence}: is a file; give a folder")
        check_free("--evidence", args.evidence, args.evidence / "index.html", args.force)
