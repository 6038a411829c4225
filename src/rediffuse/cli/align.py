"""`rediffuse align`: a copy of a data set in which the files of both classes were processed alike."""

import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from rediffuse.cli.console import bars
from rediffuse.cli.flags import Argument, CommandFlags
from rediffuse.cli.result import Result
from rediffuse.errors import ConfigError, InputError
from rediffuse.images.limits import Decoding

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class AlignFlags(Decoding, CommandFlags):
    """Copy a data set so that its files no longer reveal the class.

    A window of the same size is cut out of every file, reduced, possibly blurred, and encoded as drawn from one
    distribution for all files, and written as PNG. OUT gets the subfolders of SOURCE, and index.csv with all draws. The
    same command continues where it was stopped. Exit status: 0 done, 1 some files were left out, 2 usage error.
    """

    source: Annotated[Path, Argument(positional=True)]
    """Folder of images, with subfolders for classes, groups and splits."""
    out: Annotated[Path, Argument(positional=True)]
    """Folder for the copy."""
    seed: int = 0
    """Random seed; with the same seed, the same file gives the same pixels."""
    draws: int = 1
    """Number of copies of every file, each with its own reduction and encoding."""
    blur: Annotated[tuple[float, ...], Argument(metavar="SIGMA")] = ()
    """Smallest and largest standard deviation of a Gaussian blur, in pixels of the copy; two numbers, or none for no
    blur."""
    size: int | None = None
    """Side of the window in pixels; smaller files are left out. If not given, the short side of the smallest file."""
    workers: int = min(4, os.cpu_count() or 1)
    """Number of threads."""


def run(args: AlignFlags) -> Result:
    """The number of files that were written; status 1 if some could not be read or are too small."""
    if not args.source.is_dir():
        raise InputError(f"{args.source}: is not a folder")
    if args.out.resolve().is_relative_to(args.source.resolve()):
        raise InputError(f"{args.out}: is inside {args.source} and would be read as a part of it; give another folder")

    if len(args.blur) not in (0, 2):
        raise ConfigError(f"--blur {' '.join(map(str, args.blur))}: two numbers are needed, such as --blur 0.5 2")

    from rediffuse.detection.align import INDEX, align
    from rediffuse.images.find import find_images

    files = find_images([args.source], args.decoding)
    with bars() as progress:
        done = align(
            files,
            args.out,
            seed=args.seed,
            size=args.size,
            draws=args.draws,
            blurs=(args.blur[0], args.blur[1]) if args.blur else (0.0, 0.0),
            workers=args.workers,
            progress=progress,
        )
    for reason in done.failures:
        LOGGER.warning("%s", reason)
    size, sides = done.settings.size, ", ".join(map(str, done.settings.histories.short_sides))
    existed = f", {len(done.files) - done.num_new} existed already" if done.num_new < len(done.files) else ""
    lines = [f"{done.num_new} files written{existed}: windows of {size} px, reduced to {sides} px"]
    if done.failures:
        lines.append(f"{len(done.failures)} of {len(files)} files left out")
    lines.append(f"draws: {args.out / INDEX}")
    return Result(
        text="\n".join(lines),
        record={
            "out": args.out,
            "index": args.out / INDEX,
            "settings": asdict(done.settings),
            "num_files": len(done.files),
            "num_new": done.num_new,
            "failures": done.failures,
        },
        status=1 if done.failures else 0,
    )
