"""`rediffuse audit`: what reveals the class of a file in a data set, other than signs of generation."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rediffuse.cli.console import bars
from rediffuse.cli.flags import MODEL, Argument, CommandFlags
from rediffuse.cli.result import Result
from rediffuse.errors import ConfigError, InputError
from rediffuse.images.limits import Decoding

if TYPE_CHECKING:
    from rediffuse.detection.detector import Detector
    from rediffuse.detection.duplicates import AuditImage
    from rediffuse.detection.swap import SwapTest
    from rediffuse.progress import Progress
    from rediffuse.zoo.model import DiffusionModel

LOGGER = logging.getLogger(__name__)

GROUPS = {
    "Usual": ("--real", "--generated", "--files", "--out", "--force", "--workers"),
    "Swap test": ("--detector", "--model", "--swap-files", "--quality", "--batch-size", "--device"),
}


@dataclass(frozen=True, kw_only=True)
class AuditFlags(Decoding, CommandFlags):
    """Check whether figures that are measured on a data set can say anything about detection.

    `rediffuse audit REAL GENERATED`, or `rediffuse audit DATA`, where DATA has real/ and generated/ (see `rediffuse
    eval detector` for other layouts), or train/, validation/ and test/ with both in each. The folders above and below
    those of a class are its groups (generators, sources).

    The audit measures how well three things reveal the class: the files (format, size, compression, metadata), the
    grid that JPEG leaves in the pixels, and thumbnails of 8 pixels. It finds pictures that are in both classes or in
    several splits. The last line is its conclusion. Exit status: 0 done, 1 some files could not be read, 2 usage error.
    """

    groups = GROUPS

    paths: Annotated[tuple[str, ...], Argument(metavar="PATH", positional=True)] = ()
    """REAL and GENERATED, or one folder or CSV file that has both classes."""
    real: Annotated[tuple[str, ...], Argument(metavar="PATH")] = ()
    """Several files, folders or patterns of real images, instead of REAL."""
    generated: Annotated[tuple[str, ...], Argument(metavar="PATH")] = ()
    """Several files, folders or patterns of generated images, instead of GENERATED."""
    files: int | None = None
    """Examine a random sample of at most this number of files of each class; all if not given."""
    out: Path | None = None
    """Write the audit as a page to this .html file."""
    force: bool = False
    """Replace a page that already exists."""
    seed: int = 0
    """Random seed of the sample and of the cross-validation."""
    workers: int = min(4, os.cpu_count() or 1)
    """Number of threads that read images."""
    detector: str | None = None
    """Also run the swap test: re-encode one class only, and measure the change of this detector's AUC. The folder of a
    `rediffuse train detector`, or default for the embedded detector."""
    model: Annotated[str, MODEL] = "default"
    """The model the detector was trained with: a folder, a checkpoint, a published name, or the embedded default."""
    swap_files: int = 100
    """Number of files of each class for the swap test."""
    quality: int = 75
    """Quality of the JPEG of the swap test, 1 to 100."""
    batch_size: int = 16
    """Images per call of the network."""
    device: str = "auto"
    """cpu, cuda, cuda:1 or mps; auto takes a GPU where there is one."""

    def __post_init__(self) -> None:
        for name, number in (("files", self.files), ("swap-files", self.swap_files), ("workers", self.workers)):
            if number is not None and number < 1:
                raise ConfigError(f"--{name} {number}: at least 1 is needed")
        if not 1 <= self.quality <= 100:
            raise ConfigError(f"--quality {self.quality}: from 1 to 100 are allowed")
        if self.out is not None and self.out.suffix.lower() != ".html":
            raise ConfigError(f"--out {self.out}: the page ends in .html")


def run(args: AuditFlags) -> Result:
    """The audit as text and as a record; status 1 if a file could not be read."""
    if args.out is not None and args.out.exists() and not args.force:
        raise InputError(f"--out {args.out}: already exists; --force replaces it")

    from rediffuse.detection.audit import audit
    from rediffuse.files import write_bytes
    from rediffuse.records import dump
    from rediffuse.report.audit import audit_page, audit_text

    images = _images(args)
    tested = None if args.detector is None else _load(args.model, args.detector, args.device)
    with bars() as progress:
        report = audit(images, max_files=args.files, seed=args.seed, workers=args.workers, progress=progress)
        if tested is not None:
            report = replace(report, swap=_swap_test(args, *tested, images, progress))
    for reason in report.unreadable:
        LOGGER.warning("skipped: %s", reason)
    text, record = audit_text(report), {"line": report.line, "can_carry_a_claim": report.can_carry_a_claim}
    record |= {"problems": report.problems, "reservations": report.reservations, **dump(report)}
    if args.out is not None:
        write_bytes(args.out, audit_page(report).encode())
        text, record = f"{text}\npage: {args.out}", {**record, "page": args.out}
    return Result(text=text, record=record, status=1 if report.unreadable else 0)


def _images(args: AuditFlags) -> "list[AuditImage]":
    from rediffuse.detection.audit import audit_folder, audit_paths

    if args.paths and (args.real or args.generated):
        raise ConfigError(f"{args.paths[0]}: give either paths, or --real and --generated")
    match args.paths:
        case [folder]:
            return audit_folder(Path(folder), args.decoding)
        case [real, generated]:
            return audit_paths([real], [generated], args.decoding)
        case []:
            return audit_paths(args.real, args.generated, args.decoding)
        case [_, _, third, *_]:
            raise ConfigError(f"{third}: REAL and GENERATED are one path each; --real and --generated take several")
    raise AssertionError


def _load(name: str, source: str, device: str) -> "tuple[DiffusionModel, Detector]":
    from rediffuse.detection.detector import load_detector
    from rediffuse.detection.judge import require_model
    from rediffuse.zoo.model import load

    model = load(name, device=device)
    detector = load_detector(source, device=model.device)
    require_model(model, detector)
    return model, detector


def _swap_test(
    args: AuditFlags,
    model: "DiffusionModel",
    detector: "Detector",
    images: "Sequence[AuditImage]",
    progress: "Progress",
) -> "SwapTest":
    from rediffuse.detection.audit import sampled
    from rediffuse.detection.swap import swap_test

    return swap_test(
        model,
        detector,
        [(image.found, image.label) for image in sampled(images, args.swap_files, args.seed)],
        quality=args.quality,
        batch_size=args.batch_size,
        workers=args.workers,
        progress=progress,
    )
