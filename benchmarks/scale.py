"""Images per second of `rediffuse dire` against the number of Ray workers, and the parts of the work on one image.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/scale.py --data PHOTOS --num-images 128 --workers 1 2

The first table has the CPU time of decoding, network and writing in this process, for one image, and the bytes that are
read and written. The second one has the real time of the whole job: with one process without Ray, and with Ray. Its
rate does not count the first quarter of the images, in whose time Ray starts and each worker loads the network.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from script import read_flags

from rediffuse.cluster import choose_pool, connected
from rediffuse.dire.folder import fill, keep
from rediffuse.dire.job import FileResult, load_file, reconstruct_files
from rediffuse.dire.manifest import Manifest, Row
from rediffuse.dire.maps import MapStore
from rediffuse.dire.on_cluster import fill_on_cluster
from rediffuse.dire.reconstruct import reconstruct
from rediffuse.dire.settings import DireSettings
from rediffuse.images.even import even_batch_size
from rediffuse.images.find import FoundImage, find_images
from rediffuse.zoo.model import DiffusionModel, load

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ScaleFlags:
    """Measure how the speed of `rediffuse dire` depends on the number of workers."""

    data: Path
    """Folder of images."""
    num_images: int = 128
    """Images per measurement."""
    workers: tuple[int, ...] = (1, 2)
    """Numbers of Ray workers."""
    model: str = "default"
    """The model."""
    steps: int = 20
    """Length of the timestep grid."""
    depth: int = 5
    """Steps of the inversion, and of the reconstruction."""
    batch_size: int = 16
    """Images per call of the network."""


def main() -> None:
    """Print both tables."""
    flags = read_flags(ScaleFlags)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    files = find_images([flags.data])[: flags.num_images]
    model = load(flags.model)
    settings = DireSettings.for_model(model, steps=flags.steps, depth=flags.depth)
    parts(model, files, settings, flags)

    options = {"batch_size": flags.batch_size, "workers": 1, "num_files": len(files)}
    print("| workers | images per second | until the first results, s | whole job, s |\n| --- | ---: | ---: | ---: |")

    def local(store: MapStore, manifest: Manifest) -> Iterator[Row]:
        return fill(reconstruct_files(model, files, settings, **options), store, manifest, workers=1)

    rate("one process without Ray", local, settings, 0.0)
    for number in flags.workers:
        begin = time.perf_counter()
        with connected(None):
            pool = choose_pool(number, None, may_use_gpus=False)
            started = time.perf_counter() - begin

            def with_ray(store: MapStore, manifest: Manifest, pool=pool) -> Iterator[Row]:
                return fill_on_cluster(files, pool, store, manifest, model=flags.model, device="cpu", **options)

            rate(str(number), with_ray, settings, started)


def parts(model: DiffusionModel, files: list[FoundImage], settings: DireSettings, flags: ScaleFlags) -> None:
    """Print the CPU time of each part of the work on one image."""
    some = files[: even_batch_size(flags.batch_size, len(files))]
    loaded, decode = timed(lambda: [load_file(found, settings) for found in some])
    images = [file.x_0 for file in loaded if file.x_0 is not None]
    x_0 = torch.cat(images)
    reconstruct(model, x_0, settings)
    batch, network = timed(lambda: reconstruct(model, x_0, settings))
    with tempfile.TemporaryDirectory() as folder:
        store = MapStore(Path(folder), settings)
        results = [FileResult(found=found, reconstruction=batch[place : place + 1]) for place, found in enumerate(some)]
        _, write = timed(lambda: [keep(result, store, None) for result in results])
        written = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    read = sum(found.path.stat().st_size for found in some)
    print("| part | CPU time, ms per image | bytes per image |\n| --- | ---: | ---: |")
    for name, seconds, size in (("decode", decode, read), ("network", network, 0), ("write", write, written)):
        print(f"| {name} | {1000 * seconds / len(some):.2f} | {size // len(some) or ''} |")
    print()


def rate(
    name: str, rows: Callable[[MapStore, Manifest], Iterable[Row]], settings: DireSettings, started: float
) -> None:
    """Print the rate of a job in a new folder; `started` is what it took to start Ray, in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        store, begin = MapStore(Path(folder), settings), time.perf_counter()
        with Manifest(store.folder) as manifest:
            times = [time.perf_counter() - begin for _ in rows(store, manifest)]
    # Results come in chunks: the first quarter, and what came with its last result, are not counted.
    since = times[len(times) // 4]
    later = [at for at in times if at > since + 0.05]
    speed = len(later) / (times[-1] - since) if later else float("nan")
    print(f"| {name} | {speed:.2f} | {started + times[0]:.1f} | {started + times[-1]:.1f} |", flush=True)


def timed(function: Callable[[], T]) -> tuple[T, float]:
    """The result of a function, and the CPU time of this process in seconds."""
    begin = time.process_time()
    result = function()
    return result, time.process_time() - begin


if __name__ == "__main__":
    main()
