"""Peak memory and start-up time of a job over many images, without its network: `docs/inputs.md`.

    python benchmarks/inputs.py --figure docs/images/inputs.png

For each kind of input (a folder with 1,000 empty files in each subfolder, a CSV list, a tar file) and each number of
entries, a new process lists the images, asks the manifest for each of them and adds its row. `first` is its CPU time
until the first image would be decoded, `whole` that until its end, `peak` its largest memory (resident set). A second
process finds all of them done. The measurements are lines of `--results`; the same command makes those that are missing
there. The network and torch are left out: their memory does not depend on the number of images.
"""

import argparse
import csv
import json
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rediffuse.cli.paths import COUNTED
from rediffuse.dire.manifest import Manifest, Row
from rediffuse.images.find import counted_up_to, each_image

COLUMNS = ("input", "entries", "run", "first (s)", "whole (s)", "µs per entry", "peak (MB)")


def folder(path: Path, number: int) -> None:
    for index in range(number):
        if index % 1000 == 0:
            below = path / f"{index // 1000:04}"
            below.mkdir(parents=True)
        (below / f"{index % 1000:03}.png").touch()


def listed(path: Path, number: int) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path"])
        writer.writerows([f"photos/{index // 1000:04}/{index % 1000:03}.png"] for index in range(number))


def tar(path: Path, number: int) -> None:
    with tarfile.open(path, "w") as archive:
        for index in range(number):
            archive.addfile(tarfile.TarInfo(f"photos/{index // 1000:04}/{index % 1000:03}.png"))
            archive.members.clear()


PANELS = (("peak", "peak memory (MB)"), ("first", "CPU time to the first image (s)"))
KINDS: dict[str, tuple[str, Callable[[Path, int], None]]] = {
    "folder": ("files", folder),
    "list": ("list.csv", listed),
    "tar": ("images.tar", tar),
}


def pass_through(path: Path, out: Path) -> dict[str, float]:
    """List the images, and ask for and add their rows."""
    first, number = 0.0, 0
    images, _ = counted_up_to(COUNTED, each_image([path]))
    with Manifest(out) as manifest:
        for image in images:
            row = manifest.get(image.name)
            first = first or time.process_time()
            number += row is not None
            if row is None:
                manifest.add(row_of(image.name, str(image.absolute().path)))
    seconds, peak = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"done before": number, "first": first, "seconds": seconds, "peak": peak}


def row_of(name: str, path: str) -> Row:
    return Row(
        name=name,
        path=path,
        sha256="0" * 64,
        width=1024,
        height=768,
        codec="PNG",
        label=None,
        settings="0" * 16,
        mean_error=0.0123,
        status="done",
        reason=None,
    )


Measured = tuple[str, int, str, dict[str, float]]
"""Kind of input, number of entries, run, and what `pass_through` returned."""


def measure(kind: str, number: int, work: Path) -> list[Measured]:
    name, make = KINDS[kind]
    path, out = work / name, work / "out"
    make(path, number)
    rows = []
    for run in ("new", "done"):
        words = [sys.executable, __file__, "--measure", str(path), str(out)]
        printed = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        result = json.loads(printed)
        assert result["done before"] == (number if run == "done" else 0), result
        rows.append((kind, number, run, result))
    return rows


def table(rows: list[Measured]) -> str:
    lines = [f"| {' | '.join(COLUMNS)} |", f"| --- | ---: | --- |{' ---: |' * 4}"]
    for *names, result in rows:
        first, whole, peak = result["first"], result["seconds"], result["peak"]
        figures = f"{first:.1f} | {whole:.1f} | {1e6 * whole / int(names[1]):.0f} | {peak:.0f}"
        lines.append(f"| {' | '.join(map(str, names))} | {figures} |")
    return "\n".join(lines)


def draw(path: Path, rows: list[Measured]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    panels = zip(figure.subplots(1, 2), PANELS, strict=True)
    for axes, (key, label) in panels:
        for kind in dict.fromkeys(row[0] for row in rows):
            for run, style in (("new", "o-"), ("done", "s--")):
                points = [(number, result[key]) for name, number, which, result in rows if (name, which) == (kind, run)]
                axes.plot(*zip(*points, strict=True), style, label=f"{kind}, {run}")
        axes.set(xscale="log", xlabel="entries", ylabel=label, ylim=(0, None))
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--numbers", default="1000,10000,100000,1000000", help="numbers of entries")
    parser.add_argument("--kinds", default=",".join(KINDS), help="kinds of input")
    parser.add_argument("--results", type=Path, default=Path("runs/inputs.jsonl"), help="the measurements so far")
    parser.add_argument("--figure", type=Path, help="write a figure to this file")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(pass_through(*map(Path, args.measure))))
        return
    args.results.parent.mkdir(parents=True, exist_ok=True)
    args.results.touch()
    rows = [tuple(json.loads(line)) for line in args.results.read_text().splitlines()]
    for kind in args.kinds.split(","):
        for number in map(int, args.numbers.split(",")):
            if (kind, number) not in {row[:2] for row in rows}:
                with tempfile.TemporaryDirectory() as work, args.results.open("a") as results:
                    measured = measure(kind, number, Path(work))
                    results.writelines(json.dumps(row) + "\n" for row in measured)
                rows += measured
    order = list(KINDS)
    rows.sort(key=lambda row: (order.index(row[0]), row[1]))
    print(table(rows))
    if args.figure:
        draw(args.figure, rows)


if __name__ == "__main__":
    main()
