"""`rediffuse dire`: reconstruct image files and save the error maps."""

import logging
import os
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rediffuse.cli.console import bar
from rediffuse.cli.engine import ENGINE, EngineFlags
from rediffuse.cli.flags import FLAT, MODEL, PATHS, Argument, CommandFlags
from rediffuse.cli.paths import expand_stdin, most_to_count
from rediffuse.cli.ranks import common_batch_size, ranks
from rediffuse.cli.reconstruction import ReconstructionFlags
from rediffuse.cli.result import Result
from rediffuse.dire.settings import Kind, MapFormat, StoreForm
from rediffuse.errors import ConfigError, nearest
from rediffuse.images.limits import Decoding
from rediffuse.models.config import BatchSize, Precision, PrecisionChoice

if TYPE_CHECKING:
    from rediffuse.cluster import Pool
    from rediffuse.zoo.model import DiffusionModel

LOGGER = logging.getLogger(__name__)
MOST_LISTED = 1000
"""Failures that `--json` lists; all are in the manifest."""

GROUPS = {
    "Reconstruction": ("--model", "--steps", "--depth", "--class", "--labels"),
    "Results": ("--save", "--format", "--store", "--force"),
    "Speed and memory": ("--batch-size", "--workers", "--device", "--precision", "--max-pixels"),
    "Many machines": ENGINE,
}


@dataclass(frozen=True, kw_only=True)
class DireFlags(Decoding, CommandFlags):
    """Invert images with DDIM, reconstruct them, and save the absolute error (DIRE, arXiv:2303.09295).

    Files whose results already exist are skipped. Under torchrun or Slurm's srun, processes share the files. Exit
    status: 0 done, 1 some files failed, 2 usage error.
    """

    groups = GROUPS

    paths: Annotated[tuple[str, ...], PATHS]
    """Image files, folders (searched recursively, structure kept), glob patterns, lists (.csv, .parquet) or tar files,
    also as URLs such as s3://bucket/photos; - reads paths from standard input."""
    out: Annotated[str, Argument(metavar="FOLDER")]
    """Folder for the maps, the manifest and the settings, or a URL of one such as s3://bucket/maps."""
    model: Annotated[str, MODEL] = "default"
    """A model folder, a checkpoint, a published name, owner/name on the hub, or the embedded default."""
    save: str = "maps"
    """What to save, separated by commas: maps, reconstructions, latents."""
    map_format: Annotated[MapFormat, Argument(name="format")] = "png16"
    """Format of the maps: 16-bit PNG, or exact values in safetensors."""
    store: StoreForm = "files"
    """files: each map is a file of its own. shards: tar files of up to 1 GiB hold the same files, for
    millions of images."""
    class_: Annotated[int | None, Argument(name="class")] = None
    """The class of every image, for a class-conditional model."""
    labels: Path | None = None
    """CSV or Parquet file with the columns path and label: the class of each image, for a class-conditional model."""
    reconstruction: Annotated[ReconstructionFlags, FLAT] = field(default_factory=ReconstructionFlags)
    precision: PrecisionChoice = "auto"
    """Number format inside the network. auto is that of the results in --out, if there are any; else bf16 if the
    processor or GPU has instructions for it, else fp32."""
    batch_size: BatchSize = "auto"
    """Images, or windows of images, per call of the network. auto is the fastest number for long jobs, by a short
    measurement, and else 16, or fewer if memory is short."""
    workers: int = min(4, os.cpu_count() or 1)
    """Threads that decode, and threads that write; of each process or worker."""
    device: str = "auto"
    """cpu, cuda, cuda:1 or mps; auto takes a GPU where there is one. offload, or offload:cuda:1, keeps the parts of a
    pipeline of diffusers in main memory, and only the part that computes on the GPU."""
    force: bool = False
    """Process every file again."""
    cluster: Annotated[EngineFlags, FLAT] = field(default_factory=EngineFlags)


def run(args: DireFlags) -> Result:
    """Fill the folder and count the files; status 1 if one of them failed."""
    if args.cluster.engine == "local":
        return _fill(args)
    with args.cluster.connected(args.device) as cluster:
        return _fill(args, cluster)


def _fill(args: DireFlags, cluster: "tuple[Pool, str] | None" = None) -> Result:
    """Process the share of this process, with the workers of `cluster` on their device if it is given."""
    from rediffuse.images.find import counted_up_to, each_image

    kinds, classes = _kinds(args.save), choose_classes(args.class_, args.labels)
    most_counted = most_to_count(args.batch_size)
    found = each_image(expand_stdin(args.paths), args.decoding)
    files, num_files = counted_up_to(most_counted, found)

    from rediffuse.dire.folder import fill, unfinished
    from rediffuse.dire.job import reconstruct_files
    from rediffuse.dire.labels import with_classes
    from rediffuse.dire.maps import MapStore, stored_precision
    from rediffuse.dire.remote import open_manifest
    from rediffuse.stores import folder_of
    from rediffuse.zoo.fetch import default_cache
    from rediffuse.zoo.model import load

    own_ranks = ranks()
    out = folder_of(args.out)
    model = load(args.model, device="cpu" if cluster else own_ranks.own_device(args.device))
    files, num_own = counted_up_to(num_files, own_ranks.share(with_classes(files, model.num_classes, classes)))
    stored = stored_precision(out) if args.precision == "auto" else None
    settings = args.reconstruction.settings(model, stored or _precision(args, model, cluster))
    total = num_own if num_files < most_counted else None
    num_before, num_done, failures = 0, 0, _Failures()
    store = MapStore(out, settings, kinds=kinds, map_format=args.map_format, form=args.store)
    prepare = store.prepare if own_ranks.part else None  # a single process writes its settings with its first result
    opened = open_manifest(out, default_cache(), own_ranks.part, prepare)
    with opened as manifest, bar(total=total, unit="image") as shown:

        def skip() -> None:
            nonlocal num_before
            num_before += 1
            shown.update()

        todo = files if args.force else unfinished(files, store, manifest, workers=args.workers, done=skip)
        # The size of the batches, on which the results depend by rounding, is that of one process with all files.
        options: dict[str, Any] = {
            "batch_size": common_batch_size(args.batch_size, is_shared=bool(own_ranks.part or cluster)),
            "workers": args.workers,
            "num_files": num_files,
        }
        folder = out if isinstance(out, Path) else None
        if cluster is None:
            results = reconstruct_files(model, todo, settings, folder=folder, **options)
            rows = fill(results, store, manifest, workers=args.workers)
        else:
            from rediffuse.dire.on_cluster import fill_on_cluster
            from rediffuse.zoo.batch_size import record_batch_size

            pool, device = cluster
            record_batch_size(folder, options["batch_size"])
            rows = fill_on_cluster(todo, pool, store, manifest, model=args.model, device=device, **options)
        with closing(rows):  # before the manifest is, also after Ctrl-C
            for row in rows:
                if row.status == "failed":
                    failures.add(str(row.reason))
                else:
                    num_done += 1
                shown.update()
    return Result(
        text=f"{num_done} done, {failures.number} failed, {num_before} done before: {args.out}",
        record={
            "num_done": num_done,
            "num_done_before": num_before,
            "num_failed": failures.number,
            "failures": failures.first,
            "out": args.out,
        },
        status=1 if failures.number else 0,
    )


def _precision(args: DireFlags, model: "DiffusionModel", cluster: "tuple[Pool, str] | None") -> Precision:
    """The precision of `--precision` on the device that computes."""
    from rediffuse.zoo.model import resolve_device
    from rediffuse.zoo.precision import choose_precision

    if cluster is None:
        return choose_precision(args.precision, model.device)
    from rediffuse.cluster import call

    pool, device = cluster
    return call(lambda: choose_precision(args.precision, resolve_device(device)), pool)


class _Failures:
    """Logs the reasons of files that failed, and keeps the first ones for the result."""

    def __init__(self) -> None:
        self.number = 0
        self.first: list[str] = []

    def add(self, reason: str) -> None:
        LOGGER.error("%s", reason)
        self.number += 1
        if self.number <= MOST_LISTED:
            self.first.append(reason)


def _kinds(save: str) -> tuple[Kind, ...]:
    allowed: dict[str, Kind] = {"maps": "maps", "reconstructions": "reconstructions", "latents": "latents"}
    given = dict.fromkeys(kind.strip() for kind in save.split(","))
    for kind in given:
        if kind not in allowed:
            raise ConfigError(f"--save {save}: {kind!r} is not one of {', '.join(allowed)}{nearest(kind, allowed)}")
    return tuple(allowed[kind] for kind in given)


def choose_classes(label: int | None, labels: Path | None) -> "int | Mapping[str, int] | None":
    """The class of all files, from `--class`, or of every file, from `--labels`; None if neither is given."""
    from rediffuse.dire.labels import read_labels

    if label is not None and labels is not None:
        raise ConfigError("--class and --labels: only one of them can be given")
    return label if labels is None else read_labels(labels)
