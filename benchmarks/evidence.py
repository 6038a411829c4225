"""Measure what evidence costs as a share of the job: the time of `rediffuse detect` with and without it.

    python benchmarks/evidence.py --data WILD

The calls alternate in one process. Each call is compared with the call without evidence of the same round, and the
medians over the rounds are printed: of the wall time, and of the processor time of all threads.
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
    images: int = 48
    rounds: int = 9
    """Number of measurements."""


def main(args: Flags) -> None:
    found = find_images([args.data])
    paths = [str(one.path) for one in found[:: max(1, len(found) // args.images)][: args.images]]
    seconds: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        ways = {
            PLAIN: [],
            "detect --report FILE": ["--report", f"{folder}/report.html"],
            "detect --evidence DIR": ["--evidence", f"{folder}/evidence"],
        }
        for turn in range(args.rounds + 1):  # the first one warms up
            for name, flags in ways.items():
                words = ["detect", *paths, "--device", "cpu", "--quiet", "--force", *flags]
                wall, cpu = time.perf_counter(), time.process_time()
                with contextlib.redirect_stdout(io.StringIO()):
                    assert rediffuse(words) == 0
                if turn:
                    seconds.setdefault(name, []).append((time.perf_counter() - wall, time.process_time() - cpu))
    print(f"{len(paths)} images of {args.data}, embedded model and detector, torch {torch.__version__}")
    for name, times in seconds.items():
        shown = []
        for clock, of in enumerate(("wall", "processor")):
            own = statistics.median(one[clock] for one in times) / len(paths)
            more = statistics.median(
                one[clock] / plain[clock] - 1 for one, plain in zip(times, seconds[PLAIN], strict=True)
            )
            shown.append(f"{1000 * own:.0f} ms of {of} time per image ({more:+.1%})")
        print(f"{name:<22} {', '.join(shown)}")


if __name__ == "__main__":
    main(read_flags(Flags))
