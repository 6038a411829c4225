"""Measure what evidence costs as a share of the job: CPU time of `rediffuse detect` with and without it.

    python benchmarks/evidence.py --data WILD

The calls alternate in one process, so read the ratios. CPU time counts all threads, so other work on the machine
disturbs it less than the clock.
"""

import contextlib
import io
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from script import read_flags

from rediffuse.cli.main import main as rediffuse
from rediffuse.images.find import find_images

PLAIN = "detect"


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Judge the same images with and without evidence."""

    data: Path
    """A folder of images; they are taken at even distances from the sorted list."""
    images: int = 24
    rounds: int = 3
    """Number of measurements; the median is printed."""


def main(args: Flags) -> None:
    found = find_images([args.data])
    paths = [str(one.path) for one in found[:: max(1, len(found) // args.images)][: args.images]]
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        ways = {
            PLAIN: [],
            "detect --report FILE": ["--report", f"{folder}/report.html"],
            "detect --evidence DIR": ["--evidence", f"{folder}/evidence"],
        }
        for turn in range(args.rounds + 1):  # the first one warms up
            for name, flags in ways.items():
                words = ["detect", *paths, "--device", "cpu", "--quiet", "--force", *flags]
                begun = time.process_time()
                with contextlib.redirect_stdout(io.StringIO()):
                    assert rediffuse(words) == 0
                if turn:
                    seconds.setdefault(name, []).append(time.process_time() - begun)
    plain = statistics.median(seconds[PLAIN])
    print(f"{len(paths)} images of {args.data}, embedded model and detector, torch {torch.__version__}")
    for name, times in seconds.items():
        own = statistics.median(times)
        print(f"{name:<22} {1000 * own / len(paths):6.0f} ms of CPU time per image, {own / plain - 1:+.1%}")


if __name__ == "__main__":
    main(read_flags(Flags))
