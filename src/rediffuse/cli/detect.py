"""`rediffuse detect`: from image files to verdicts, with evidence a person can look at."""

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from rediffuse.errors import InputError, StorageError

if TYPE_CHECKING:
    from rediffuse.detection.verdict import Verdict


@dataclass(frozen=True, kw_only=True)
class DetectFlags:
    """Judge image files: real, generated or unsure, each with a probability and a reason.

    Exit status: 0 all files were judged, 1 some were not, 2 the call has to be mended.
    """

    paths: tyro.conf.Positional[tuple[str, ...]]
    """Image files, folders (searched recursively) or glob patterns."""
    out: Path | None = None
    """Table of all verdicts: a .csv, .json or .parquet file."""
    evidence: Path | None = None
    """Folder for one picture per image and a page, index.html, that shows them."""
    model: str = "default"
    """The model the detector was trained with: a folder, a checkpoint, a published name, or the embedded default."""
    detector: Path | None = None
    """A folder that `rediffuse train detector` wrote; the embedded default if not given."""
    batch_size: int = 16
    """Images per call of the network."""
    workers: int = min(4, os.cpu_count() or 1)
    """Threads that decode."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto takes a GPU where there is one."""
    force: bool = False
    """Replace a table or an evidence page that is already there."""


def run(args: DetectFlags) -> int:
    """Print the table of verdicts, write what was asked for; 1 where a file could not be judged."""
    from rediffuse.images.find import find_images
    from rediffuse.report.page import write_page
    from rediffuse.report.tables import text_table, write_table
    from rediffuse.report.words import summary

    _check_outputs(args)
    files = find_images(args.paths)

    from rediffuse.detection.detector import load_detector
    from rediffuse.detection.judge import judge
    from rediffuse.zoo.model import load
    from rediffuse.zoo.published import default_folder

    model = load(args.model, device=args.device)
    detector = load_detector(args.detector or default_folder() / "detector", model.device)
    found = judge(model, files, detector, batch_size=args.batch_size, workers=args.workers)
    verdicts, stopped = _collect(found, len(files), args.evidence)

    print(text_table(verdicts))
    print(f"\n{summary(verdicts)}")
    if args.out is not None:
        write_table(args.out, verdicts)
        print(f"table: {args.out}")
    if stopped is not None:
        raise stopped
    if args.evidence is not None:
        print(f"evidence: {write_page(args.evidence, verdicts)}")
    return 0 if all(verdict.judged for verdict in verdicts) else 1


def _collect(
    found: "Iterable[Verdict]", total: int, evidence: Path | None
) -> "tuple[list[Verdict], StorageError | KeyboardInterrupt | None]":
    """The verdicts without their pixels; these go into pictures as they come, so that a long job does not keep them.

    With them comes what ended the work early: a picture that could not be written, or Ctrl-C. What was judged till then
    is not lost.
    """
    from tqdm import tqdm

    from rediffuse.files import write_bytes
    from rediffuse.report.evidence import evidence_png
    from rediffuse.report.page import picture_name

    verdicts = []
    try:
        for verdict in tqdm(found, total=total, unit="image", file=sys.stderr):
            verdicts.append(replace(verdict, evidence=None))
            if evidence is not None and verdict.judged:
                write_bytes(evidence / picture_name(verdict), evidence_png(verdict))
    except (StorageError, KeyboardInterrupt) as error:
        return verdicts, error
    return verdicts, None


def _check_outputs(args: DetectFlags) -> None:
    """Find out before the work what would stop its results from being written."""
    from rediffuse.report.page import INDEX
    from rediffuse.report.tables import check_table_path

    if args.out is not None:
        check_table_path(args.out)
        if args.out.is_dir():
            raise InputError(f"--out {args.out}: is a folder; name a file in it")
        _check_free("--out", args.out, args.out, args.force)
    if args.evidence is not None:
        if args.evidence.exists() and not args.evidence.is_dir():
            raise InputError(f"--evidence {args.evidence}: is a file; name a folder")
        _check_free("--evidence", args.evidence, args.evidence / INDEX, args.force)


def _check_free(flag: str, given: Path, result: Path, force: bool) -> None:
    if result.exists() and not force:
        raise InputError(f"{flag} {given}: {result.name} is already there; --force replaces it")
    above = next(folder for folder in result.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise InputError(f"{flag} {given}: {above} is not a folder that can be written to")
