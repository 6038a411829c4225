"""`rediffuse detect`: judge image files, and write tables and reports."""

import contextlib
import logging
import os
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rediffuse.cli.console import track
from rediffuse.cli.engine import EngineFlags
from rediffuse.cli.flags import FLAT, MODEL, PATHS, Argument, CommandFlags
from rediffuse.cli.paths import check_free, check_free_file, check_report, expand_stdin, most_to_count
from rediffuse.cli.ranks import common_batch_size, ranks
from rediffuse.cli.result import Result
from rediffuse.errors import InputError
from rediffuse.images.limits import Decoding
from rediffuse.models.config import BatchSize, PrecisionChoice
from rediffuse.stores import is_url

if TYPE_CHECKING:
    from rediffuse.detection.verdict import Verdict
    from rediffuse.images.find import FoundImage
    from rediffuse.report.parts import TableParts
    from rediffuse.report.tables import Row

STDOUT = "-"
MOST_SHOWN = 10_000
"""Rows of the table in the terminal."""
LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DetectFlags(Decoding, CommandFlags):
    """Judge image files: real, generated or unsure, each with a probability and a reason.

    Under torchrun or Slurm's srun, processes share the files. Exit status: 0 all files were judged, 1 some were not,
    2 usage error.
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
    cluster: Annotated[EngineFlags, FLAT] = field(default_factory=EngineFlags)


def run(args: DetectFlags) -> Result:
    """The table of verdicts, and the written files; status 1 if a file could not be judged or written."""
    from rediffuse.files import claim

    _check_outputs(args)
    claimed = contextlib.nullcontext() if args.evidence is None else claim(args.evidence)
    with claimed, contextlib.ExitStack() as kept:
        return replace(_judge(args, kept), kept=kept.pop_all())


@dataclass(frozen=True, kw_only=True)
class _Share:
    """The files of this process, of which some may have rows of an earlier call."""

    files: "Iterator[FoundImage]"
    """Those to judge."""
    places: "Sequence[int] | None" = None
    """Those of `files` among the files of this process; None if it judges all of them."""
    rows: "Mapping[int, Row]" = field(default_factory=dict)
    """The rows that are there already, by place."""
    number: int
    """The files of this process, as far as they were counted."""
    is_counted: bool
    job_number: int
    """The files of all processes, as far as they were counted."""
    job_files: "Sequence[FoundImage]" = ()
    """The files of all processes, if there are several."""
    parts: "TableParts | None" = None
    """Keeps the rows for the next call, and for the other processes."""


def _share(args: DetectFlags, kept: contextlib.ExitStack) -> _Share:
    from rediffuse.images.find import counted_up_to, each_image

    most = most_to_count(args.batch_size)
    files, number = counted_up_to(most, each_image(expand_stdin(args.paths), args.decoding))
    if not _is_shared(args):
        return _Share(files=files, number=number, is_counted=number < most, job_number=number)
    job_files = list(files)
    own = list(ranks().share(job_files))
    parts = kept.enter_context(_parts(args, ranks().part)) if _keeps_parts(args) else None
    before = parts.kept(own, workers=args.workers) if parts else {}
    places = [place for place, image in enumerate(own) if image.name not in before]
    return _Share(
        files=iter([own[place] for place in places]),
        places=places,
        rows={place: before[image.name] for place, image in enumerate(own) if image.name in before},
        number=len(own),
        is_counted=True,
        job_number=number,
        job_files=job_files,
        parts=parts,
    )


def _judge(args: DetectFlags, kept: contextlib.ExitStack) -> Result:
    from rediffuse.journal import Journal
    from rediffuse.report.tables import TableRows, csv_lines, text_table
    from rediffuse.report.words import kind_of, summary

    share = _share(args, kept)

    from rediffuse.report.page import Report

    folder = Path(kept.enter_context(tempfile.TemporaryDirectory()))
    journal = kept.enter_context(contextlib.closing(Journal(folder / "rows.sqlite", is_temporary=True)))
    rows, counts, notes, stopped = TableRows([journal]), Counter[str](), [], None
    for place, row in share.rows.items():
        journal.add(_key(place), row)
        counts[row["decision"]] += 1
    with Report(file=args.report, folder=args.evidence, workers=args.workers) as report:
        try:
            judged = _verdicts(args, share)
            for number, verdict in track(judged, share.number if share.is_counted else None, initial=counts.total()):
                journal.add(_key(number if share.places is None else share.places[number]), verdict.to_row())
                if share.parts:
                    share.parts.add(verdict)
                counts[kind_of(verdict)] += 1
                report.add(verdict)
        except KeyboardInterrupt as error:  # the verdicts until then are not lost
            stopped = error
            most = f"{share.number}" if share.is_counted else f"at least {share.number}"
            notes = [f"The work was interrupted: {counts.total()} of {most} images were judged."]
        pages = report.write(notes=notes)
    for failure in report.failures:
        LOGGER.error("%s", failure)

    written = _write_table(args, share, rows)
    if written and share.parts and not (stopped or ranks().part):
        kept.callback(share.parts.remove)
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


def _write_table(args: DetectFlags, share: _Share, rows: "Collection[Row]") -> dict[str, Path | str]:
    """Write `--out`. Of several processes, only the last one to finish finds the rows of all, and writes it."""
    from rediffuse.report.tables import write_table

    if args.out in (None, STDOUT):
        return {}
    table = share.parts.rows(share.job_files) if share.parts and ranks().part else rows
    if table is None:
        LOGGER.info("%s: waits for the verdicts of other processes", args.out)
        return {}
    write_table(args.out, table)
    return {"table": args.out}


def _key(place: int) -> str:
    return f"{place:012}"


def _verdicts(args: DetectFlags, share: _Share) -> "Iterator[tuple[int, Verdict]]":
    """The verdicts as they come, each with the number of its file in `share.files`."""
    has_report = args.report is not None or args.evidence is not None
    options: dict[str, Any] = {
        "model": args.model,
        "detector": args.detector,
        "max_false_alarms": args.max_false_alarms,
        "max_misses": args.max_misses,
        "stability": args.stability,
        "batch_size": common_batch_size(args.batch_size, is_shared=_is_shared(args)),
        "workers": args.workers,
        "precision": args.precision,
        "explain": has_report or args.json or args.out is not None,
        "evidence": has_report,
        "num_files": share.job_number,
    }
    if args.cluster.engine == "local":
        from rediffuse.detection.detect import detect_each

        yield from enumerate(detect_each(share.files, device=ranks().own_device(args.device), **options))
    elif found := list(share.files):
        from rediffuse.detection.on_cluster import detect_on_cluster

        with args.cluster.connected(args.device) as (pool, device):
            yield from detect_on_cluster(found, pool, device=device, **options)


def _is_shared(args: DetectFlags) -> bool:
    """Whether several processes do the work."""
    return bool(ranks().part) or args.cluster.engine == "ray"


def _keeps_parts(args: DetectFlags) -> bool:
    """Whether the verdicts until an interruption are used by the next call; a page also needs the images."""
    is_file = args.out not in (None, STDOUT) and not is_url(args.out)
    return _is_shared(args) and is_file and args.report is None and args.evidence is None


def _parts(args: DetectFlags, part: str) -> "TableParts":
    from rediffuse.detection.detector import load_detector
    from rediffuse.report.parts import TableParts

    assert args.out is not None
    record = {
        "detector": load_detector(args.detector).sha256,
        "max_false_alarms": args.max_false_alarms,
        "max_misses": args.max_misses,
        "stability": args.stability,
        "precision": args.precision,
    }
    return TableParts(Path(args.out), record, part=part, force=args.force)


def _check_outputs(args: DetectFlags) -> None:
    """Raise the errors of writing the results that can be found before the work."""
    from rediffuse.report.parts import TableParts
    from rediffuse.report.tables import check_table_path

    if not _keeps_parts(args):
        shown = [f"--{name}" for name in ("report", "evidence") if getattr(args, name) is not None]
        ranks().refuse(shown[0] if shown else "no --out FILE", "give --out FILE alone, or use --engine ray")
    if args.out not in (None, STDOUT):
        check_table_path(args.out)
        is_continued = _keeps_parts(args) and TableParts.folder_of(Path(args.out)).exists()
        check_free_file("--out", args.out, args.force or is_continued)
    check_report(args.report, args.force)
    if args.evidence is not None:
        if args.evidence.exists() and not args.evidence.is_dir():
            raise InputError(f"--evidence {args.evidence}: is a file; give a folder")
        check_free("--evidence", args.evidence, args.evidence / "index.html", args.force)
