"""`rediffuse dire`: reconstruct image files and save the error maps."""

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rediffuse.cli.console import bar
from rediffuse.cli.flags import FLAT, MODEL, PATHS, Argument, CommandFlags
from rediffuse.cli.paths import expand_stdin
from rediffuse.cli.reconstruction import ReconstructionFlags
from rediffuse.cli.result import Result
from rediffuse.dire.settings import Kind, MapFormat
from rediffuse.errors import ConfigError, nearest
from rediffuse.images.limits import Limits
from rediffuse.models.config import PrecisionChoice

if TYPE_CHECKING:
    from rediffuse.dire.manifest import Row


LOGGER = logging.getLogger(__name__)

GROUPS = {
    "Reconstruction": ("--model", "--steps", "--depth", "--class", "--labels"),
    "Results": ("--save", "--format", "--force"),
    "Speed and memory": ("--batch-size", "--workers", "--device", "--precision", "--max-pixels"),
}


@dataclass(frozen=True, kw_only=True)
class DireFlags(CommandFlags):
    """Invert images with DDIM, reconstruct them, and save the absolute error (DIRE, arXiv:2303.09295).

    Files whose results already exist are skipped. Exit status: 0 done, 1 some files failed, 2 usage error.
    """

    groups = GROUPS

    paths: Annotated[tuple[str, ...], PATHS]
    """Image files, folders (searched recursively, structure kept) or glob patterns; - reads paths from standard
    input."""
    out: Path
    """Folder for the maps, the manifest and the settings."""
    model: Annotated[str, MODEL] = "default"
    """A model folder, a checkpoint, a published name, owner/name on the hub, or the embedded default."""
    save: str = "maps"
    """What to save, separated by commas: maps, reconstructions, latents."""
    map_format: Annotated[MapFormat, Argument(name="format")] = "png16"
    """Format of the maps: 16-bit PNG, or exact values in safetensors."""
    class_: Annotated[int | None, Argument(name="class")] = None
    """The class of every image, for a class-conditional model."""
    labels: Path | None = None
    """CSV file with the columns path and label: the class of each image, for a class-conditional model."""
    reconstruction: Annotated[ReconstructionFlags, FLAT] = field(default_factory=ReconstructionFlags)
    precision: PrecisionChoice = "auto"
    """Number format inside the network. auto is that of the results in --out, if there are any; else bf16 if the
    processor or GPU has instructions for it, else fp32."""
    batch_size: int = 16
    """Images, or windows of images, per call of the network."""
    workers: int = min(4, os.cpu_count() or 1)
    """Threads that decode, and threads that write."""
    device: str = "auto"
    """cpu, cuda, cuda:1 or mps; auto takes a GPU where there is one. offload, or offload:cuda:1, keeps the parts of a
    pipeline of diffusers in main memory, and only the part that computes on the GPU."""
    max_pixels: int = Limits.max_pixels
    """Largest file that is decoded, in pixels. Each file may take 5 s of CPU time and 512 MiB of memory; with a larger
    number, proportionally more."""
    force: bool = False
    """Process every file again."""


def run(args: DireFlags) -> Result:
    """Fill the folder and count the files; status 1 if one of them failed."""
    from rediffuse.images.find import find_images

    kinds = _kinds(args.save)
    files = find_images(expand_stdin(args.paths), Limits.for_pixels(args.max_pixels))

    from rediffuse.dire.folder import fill, unfinished
    from rediffuse.dire.job import check_labels, reconstruct_files
    from rediffuse.dire.manifest import Manifest
    from rediffuse.dire.maps import MapStore, stored_precision
    from rediffuse.zoo.model import load
    from rediffuse.zoo.precision import choose_precision

    labels = choose_labels(args.class_, args.labels, [found.name for found in files])
    model = load(args.model, device=args.device)
    check_labels(model, files, labels)
    stored = stored_precision(args.out) if args.precision == "auto" else None
    settings = args.reconstruction.settings(model, stored or choose_precision(args.precision, model.device))
    with Manifest(args.out) as manifest:
        store = MapStore(args.out, settings, kinds=kinds, map_format=args.map_format)
        todo = files if args.force else unfinished(files, store, manifest, labels=labels, workers=args.workers)
        results = reconstruct_files(
            model,
            todo,
            settings,
            batch_size=args.batch_size,
            labels=labels,
            workers=args.workers,
            num_files=len(files),
        )
        rows = fill(results, store, manifest, workers=args.workers)
        num_before = len(files) - len(todo)
        failures = _finish(rows, num_files=len(files), num_before=num_before)
    num_done = len(todo) - len(failures)
    return Result(
        text=f"{num_done} done, {len(failures)} failed, {num_before} done before: {args.out}",
        record={"num_done": num_done, "num_done_before": num_before, "failures": failures, "out": args.out},
        status=1 if failures else 0,
    )


def _kinds(save: str) -> tuple[Kind, ...]:
    allowed: dict[str, Kind] = {"maps": "maps", "reconstructions": "reconstructions", "latents": "latents"}
    given = dict.fromkeys(kind.strip() for kind in save.split(","))
    for kind in given:
        if kind not in allowed:
            raise ConfigError(f"--save {save}: {kind!r} is not one of {', '.join(allowed)}{nearest(kind, allowed)}")
    return tuple(allowed[kind] for kind in given)


def choose_labels(label: int | None, labels: Path | None, names: list[str]) -> dict[str, int] | None:
    """The class of every file, from `--class` or from `--labels`; None if neither is given."""
    from rediffuse.dire.labels import read_labels

    if label is not None and labels is not None:
        raise ConfigError("--class and --labels: only one of them can be given")
    if labels is not None:
        return read_labels(labels)
    return None if label is None else dict.fromkeys(names, label)


def _finish(rows: "Iterable[Row]", *, num_files: int, num_before: int) -> list[str]:
    """Process all files, with a bar; returns the reasons for those that failed."""
    failures = []
    with bar(total=num_files, initial=num_before, unit="image") as shown:
        for row in rows:
            if row.status == "failed":
                failures.append(str(row.reason))
                LOGGER.error("%s", row.reason)
            shown.update()
    return failures
