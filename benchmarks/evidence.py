"""Measure what evidence costs as a share of the job: the time of `rediffuse detect` with and without it.

    python benchmarks/evidence.py --data WILD

The calls alternate in one process, and each round begins with another one. Each call is compared with the call without
evidence of the same round, and the medians over the rounds are printed: of the wall time, with the quartiles, and of
the processor time of all threads.
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
    rounds: int = 48
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
            order = [*ways.items()]
            for name, flags in order[turn % len(order) :] + order[: turn % len(order)]:
                words = ["detect", *paths, "--device", "cpu", "--quiet", "--force", *flags]
                wall, cpu = time.perf_counter(), time.process_time()
                with contextlib.redirect_stdout(io.StringIO()):
                    assert rediffuse(words) == 0
                if turn:
                    seconds.setdefault(name, []).append((time.perf_counter() - wall, time.process_time() - cpu))
    print(f"{len(paths)} images of {args.data}, embedded model and detector, torch {torch.__version__}")
    for name in ways:
        times = seconds[name]
        wall, processor = (1000 * statistics.median(column) / len(paths) for column in zip(*times, strict=True))
        more = [
            [own / plain - 1 for own, plain in zip(one, other, strict=True)]
            for one, other in zip(times, seconds[PLAIN], strict=True)
        ]
        low, middle, high = statistics.quantiles([ratio for ratio, _ in more], n=4)
        of_processor = statistics.median(ratio for _, ratio in more)
        print(
            f"{name:<22} {wall:.0f} ms of wall time per image ({middle:+.1%}; quartiles {low:+.1%}, {high:+.1%}), "
            f"{processor:.0f} ms of processor time ({of_processor:+.1%})"
        )


if __name__ == "__main__":
    main(read_flags(Flags))
