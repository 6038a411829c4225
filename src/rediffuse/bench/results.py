"""The results of a benchmark in a folder, so that an interrupted one continues; and as tables."""

import json
import os
import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch

from rediffuse.bench.parts import Options, Part, Row, measure
from rediffuse.files import write_bytes
from rediffuse.progress import Progress, unobserved
from rediffuse.records import dump, parse, read_json
from rediffuse.zoo.model import DiffusionModel

_TITLES: dict[Part, str] = {
    "forward": "Forward pass, per image",
    "round_trip": "Inversion and reconstruction, 5 of 20 DDIM steps, per image",
    "train": "Training step, per image",
    "job": "From files to verdicts, in one process, per image",
    "start": "The command, from its start",
}
"""Times are per image; those of `start` are of the whole command."""
_COLUMNS = ("subject", "batch", "ms", "images/s", "ratio", "peak memory", "operations", "share of the rate")


@dataclass(frozen=True, kw_only=True)
class Result:
    """The rows of one part, with what they depend on."""

    date: str
    machine: str
    load: float
    """The load average of the machine, before: above 0 other programs were running."""
    model_sha256: str
    options: Options
    rows: tuple[Row, ...]


def bench(
    model: DiffusionModel,
    parts: Sequence[Part],
    options: Options,
    folder: Path | None = None,
    *,
    force: bool = False,
    progress: Progress = unobserved,
) -> dict[Part, Result]:
    """Measure the parts, in order.

    Args:
        model: the model.
        parts: names in `parts.PARTS`.
        options: what to measure.
        folder: where the result of each part is kept as PART.json. Parts with a result of the same model and options on
            the same machine are not measured again.
        force: measure them all the same.
        progress: called after each part.

    Raises:
        ConfigError, InputError: see `parts.measure`; or a file in the folder cannot be read.
        StorageError: a result could not be written.
    """
    results: dict[Part, Result] = {}
    for number, part in enumerate(parts):
        progress("bench", number, len(parts), part)
        path = None if folder is None else folder / f"{part}.json"
        found = None if path is None or force else _read(path)
        if found is None or not _is_of(found, model, options):
            load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
            found = Result(
                date=date.today().isoformat(),
                machine=machine(model.device),
                load=round(load, 1),
                model_sha256=model.provenance.sha256,
                options=options,
                rows=tuple(measure(part, model, options)),
            )
            if path is not None:
                write_bytes(path, (json.dumps(dump(found), indent=1) + "\n").encode())
        results[part] = found
    progress("bench", len(parts), len(parts))
    return results


def machine(device: torch.device) -> str:
    """Processor or accelerator, number of threads, and the versions."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{_processor()}, {torch.get_num_threads()} of {os.cpu_count()} cores"
    return f"{name}, torch {torch.__version__}, Python {platform.python_version()}"


def tables(results: dict[Part, Result]) -> str:
    """The results as Markdown, one table per part."""
    each = (f"**{_TITLES[part]}** ({_about(result)})\n\n{table(result.rows)}" for part, result in results.items())
    return "\n\n".join(each)


def table(rows: Iterable[Row]) -> str:
    """One table, without columns that are empty in all rows."""
    lines = [tuple(_cells(row)) for row in rows]
    kept = [place for place in range(len(_COLUMNS)) if any(line[place] for line in lines)]
    cells = [_COLUMNS, tuple("---" for _ in _COLUMNS), *lines]
    return "\n".join("| " + " | ".join(line[place] for place in kept) + " |" for line in cells)


def _cells(row: Row) -> Iterator[str]:
    yield row.subject
    of_images = row.part != "start"
    yield str(row.batch_size) if of_images else ""
    yield f"{1000 * row.seconds:.3g}" if row.seconds < 1 else f"{1000 * row.seconds:,.0f}"
    yield f"{1 / row.seconds:.3g}" if of_images else ""
    yield "1" if row.ratio is None else f"{row.ratio:.2f}"
    yield "" if row.peak_bytes is None else f"{row.peak_bytes / 2**20:,.0f} MiB"
    yield "" if row.operations is None else f"{row.operations / 1e9:,.2f} G"
    yield "" if row.share is None else f"{row.share:.0%}"


def _about(result: Result) -> str:
    clock = {"wall": "wall time", "cpu": "processor time"}[result.options.clock]
    rounds = f"median of {result.options.rounds} rounds"
    return f"{result.date}, {result.machine}; {clock}, {rounds}; load before {result.load:.1f}"


def _is_of(result: Result, model: DiffusionModel, options: Options) -> bool:
    return (result.model_sha256, result.options, result.machine) == (
        model.provenance.sha256,
        options,
        machine(model.device),
    )


def _read(path: Path) -> Result | None:
    return parse(Result, read_json(path), str(path)) if path.exists() else None


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
