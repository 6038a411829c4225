"""`rediffuse detect`: judge image files, and write tables and reports."""

import contextlib
import logging
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from rediffuse.cli.console import track
from rediffuse.cli.flags import MODEL, PATHS, Argument, CommandFlags
from rediffuse.cli.paths import check_free, check_free_file, check_report, expand_stdin, most_to_count
from rediffuse.cli.result import Result
from rediffuse.errors import InputError
from rediffuse.images.limits import Decoding
from rediffuse.models.config import BatchSize, PrecisionChoice

STDOUT = "-"
MOST_SHOWN = 10_000
"""Rows of the table in the terminal."""
LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DetectFlags(Decoding, CommandFlags):
    """Judge image files: real, generated or unsure, each with a probability and a reason.

    Exit status: 0 all files were judged, 1 some were not, 2 usage error.
    """

    paths: Annotated[tuple[str, ...], PATHS]
    """Image files, folders (searched recursively), glob patterns, lists (.csv, .parquet) or tar files, also as URLs
    such as s3://bucket/photos; - reads paths from standard input."""
    out: Annotated[str | None, Argument(metavar="PATH")] = None
    """Write the verdicts to this .csv, .json or .parquet file, or URL such as s3://bucket/verdicts.csv; - writes CSV to
    standard output instead of the table."""
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
    batch_size: BatchSize = "auto"
    """Images, or windows of images, per call of the network. auto is the fastest number for long jobs, by a short
    measurement, and else 16, or fewer if memory is short."""
    workers: int = min(4, os.cpu_count() or 1)
    """Threads that decode images, and threads that make pictures of a report."""
    device: str = "auto"
    """cpu, cuda, cuda:1 or mps; auto takes a GPU where there is one. offload, or offload:cuda:1, keeps the parts of a
    pipeline of diffusers in main memory, and only the part that computes on the GPU."""
    precision: PrecisionChoice = "auto"
    """Number format inside the network; auto is the fastest one here for which the detector was shown to give equal
    verdicts."""
    force: bool = False
    """Replace a table or a page that already exists."""


def run(args: DetectFlags) -> Result:
    """The table of verdicts, and the written files; status 1 if a file could not be judged or written."""
    from rediffuse.files import claim

    _check_outputs(args)
    claimed = contextlib.nullcontext() if args.evidence is None else claim(args.evidence)
    with claimed, contextlib.ExitStack() as kept:
        return replace(_judge(args, kept), kept=kept.pop_all())


def _judge(args: DetectFlags, kept: contextlib.ExitStack) -> Result:
    from rediffuse.images.find import counted_up_to, each_image
    from rediffuse.journal import Journal
    from rediffuse.report.tables import TableRows, csv_lines, text_table, write_table
    from rediffuse.report.words import kind_of, summary

    most_counted = most_to_count(args.batch_size)
    found = each_image(expand_stdin(args.paths), args.decoding)
    files, num_files = counted_up_to(most_counted, found)

    from rediffuse.detection.detect import detect_each
    from rediffuse.report.page import Report

    has_report = args.report is not None or args.evidence is not None
    verdicts = detect_each(
        files,
        num_files=num_files,
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
    journal = kept.enter_context(
        contextlib.closing(Journal(Path(kept.enter_context(tempfile.TemporaryDirectory())) / "rows.sqlite"))
    )
    rows, counts, notes, stopped = TableRows([journal]), Counter[str](), [], None
    is_counted = num_files < most_counted
    with Report(file=args.report, folder=args.evidence, workers=args.workers) as report:
        try:
            for verdict in track(verdicts, num_files if is_counted else None):
                journal.add(f"{counts.total():012}", verdict.to_row())
                counts[kind_of(verdict)] += 1
                report.add(verdict)
        except KeyboardInterrupt as error:  # the verdicts until then are not lost
            stopped = error
            number = f"{num_files}" if is_counted else f"at least {num_files}"
            notes = [f"The work was interrupted: {counts.total()} of {number} images were judged."]
        pages = report.write(notes=notes)
    for failure in report.failures:
        LOGGER.error("%s", failure)

    written: dict[str, Path | str] = {}
    if args.out not in (None, STDOUT):
        write_table(args.out, rows)
        written["table"] = args.out
    written |= pages
    if args.out == STDOUT:
        LOGGER.info("%s", summary(counts))
        text: str | Iterator[str] = csv_lines(rows)
    else:
        shown = text_table(list(rows)) if len(rows) <= MOST_SHOWN else "The table is long; --out writes it to a file."
        text = "\n".join([shown, "", summary(counts), *(f"{name}: {path}" for name, path in written.items())])
    return Result(
        text=text,
        record={"verdicts": list(rows) if args.json else [], **written},
        status=1 if report.failures or counts["unjudged"] else 0,
        stopped_by=stopped,
    )


def _check_outputs(args: DetectFlags) -> None:
    """Raise the errors of writing the results that can be found before the work."""
    from rediffuse.report.tables import check_table_path

    if args.out not in (None, STDOUT):
        check_table_path(args.out)
        check_free_file("--out", args.out, args.force)
    check_report(args.report, args.force)
    if args.evidence is not None:
        if args.evidence.exists() and not args.evidence.is_dir():
            raise InputError(f"--evidence {args.evidence}: is a file; give a folder")
        check_free("--evidence", args.evidence, args.evidence / "index.html", args.force)
