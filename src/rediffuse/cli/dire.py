"""`rediffuse dire`: reconstruct image files and keep what did not return."""

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from rediffuse.dire.settings import Crop, DireSettings, Grid, Kind, MapFormat, Precision
from rediffuse.errors import ConfigError, nearest

if TYPE_CHECKING:
    from rediffuse.dire.manifest import Row


@dataclass(frozen=True, kw_only=True)
class DireFlags:
    """Invert images with DDIM, reconstruct them, and keep the error maps. What is done already is skipped."""

    paths: tyro.conf.Positional[tuple[str, ...]]
    """Image files, folders (searched recursively, structure kept) or glob patterns."""
    out: Path
    """Folder for the maps, the manifest and the settings."""
    model: str = "default"
    """A model folder, a checkpoint, a published name, or the embedded default."""
    steps: int = DireSettings.steps
    """Length of the timestep grid."""
    depth: int | None = None
    """Steps of the grid to walk before turning back; all of them if not given."""
    save: str = "maps"
    """What to keep, separated by commas: maps, reconstructions, latents."""
    map_format: Annotated[MapFormat, tyro.conf.arg(name="format")] = "png16"
    """How maps are kept: 16-bit PNG, or exact in safetensors."""
    class_: Annotated[int | None, tyro.conf.arg(name="class")] = None
    """The class of every image, for a class-conditional model."""
    labels: Path | None = None
    """CSV file with the columns path and label: the class of each image, for a class-conditional model."""
    grid: Grid = DireSettings.grid
    """The original's inversion grid, or the one that mirrors sampling."""
    clip: bool = DireSettings.clip
    """Clip the predicted x_0 to [-1, 1] in every step."""
    frequency: str = DireSettings.frequency
    """What is done to the model's skip connections: trained (nothing, or its own spectral gates), off, freeu, freeu:B,
    sharpen or lowpass."""
    crop: Crop = DireSettings.crop
    """Cut the middle square, or squash the image into one."""
    precision: Precision = DireSettings.precision
    """Number format inside the network."""
    batch_size: int = 16
    """Images per call of the network."""
    workers: int = min(4, os.cpu_count() or 1)
    """Threads that decode, and threads that write."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto takes a GPU where there is one."""
    force: bool = False
    """Do every file again."""


def run(args: DireFlags) -> int:
    """Fill the folder and print what became of the files; 1 where one of them failed."""
    from rediffuse.images.find import find_images

    kinds = _kinds(args.save)
    files = find_images(args.paths)

    from rediffuse.dire.folder import fill, unfinished
    from rediffuse.dire.job import check_labels, reconstruct_files
    from rediffuse.dire.manifest import Manifest
    from rediffuse.dire.maps import MapStore
    from rediffuse.zoo.model import load

    labels = choose_labels(args.class_, args.labels, [found.name for found in files])
    model = load(args.model, device=args.device)
    check_labels(model, files, labels)
    settings = DireSettings.for_model(
        model,
        steps=args.steps,
        depth=args.depth,
        clip=args.clip,
        precision=args.precision,
        grid=args.grid,
        crop=args.crop,
        frequency=args.frequency,
    )
    store = MapStore(args.out, settings, kinds=kinds, map_format=args.map_format)
    with Manifest(args.out) as manifest:
        todo = files if args.force else unfinished(files, store, manifest, labels=labels, workers=args.workers)
        results = reconstruct_files(
            model, todo, settings, batch_size=args.batch_size, labels=labels, workers=args.workers
        )
        rows = fill(results, store, manifest, workers=args.workers)
        num_failed = _show(rows, num_files=len(files), num_skipped=len(files) - len(todo))
    print(f"{len(todo) - num_failed} done, {num_failed} failed, {len(files) - len(todo)} done before: {args.out}")
    return 1 if num_failed else 0


def _kinds(save: str) -> tuple[Kind, ...]:
    allowed: dict[str, Kind] = {"maps": "maps", "reconstructions": "reconstructions", "latents": "latents"}
    given = dict.fromkeys(kind.strip() for kind in save.split(","))
    for kind in given:
        if kind not in allowed:
            raise ConfigError(f"--save {save}: {kind!r} is not one of {', '.join(allowed)}{nearest(kind, allowed)}")
    return tuple(allowed[kind] for kind in given)


def choose_labels(label: int | None, labels: Path | None, names: list[str]) -> dict[str, int] | None:
    """The class of every file, from `--class` or from `--labels`; None where neither is given."""
    from rediffuse.dire.labels import read_labels

    if label is not None and labels is not None:
        raise ConfigError("--class and --labels: only one of them can say what the classes are")
    if labels is not None:
        return read_labels(labels)
    return None if label is None else dict.fromkeys(names, label)


def _show(rows: "Iterable[Row]", *, num_files: int, num_skipped: int) -> int:
    """A bar with rate and time left, and one line for every file that failed; returns how many did."""
    from tqdm import tqdm

    num_failed = 0
    with tqdm(total=num_files, initial=num_skipped, unit="image", file=sys.stderr) as bar:
        for row in rows:
            if row.status == "failed":
                num_failed += 1
                bar.write(f"rediffuse: {row.reason}", file=sys.stderr)
            bar.update()
    return num_failed
