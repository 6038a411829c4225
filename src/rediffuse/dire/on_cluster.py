"""Reconstruct files with the workers of a Ray cluster; the results are those of `job.reconstruct_files`."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from rediffuse.cluster import LEFT_OUT, Pool, each
from rediffuse.dire.folder import keep
from rediffuse.dire.job import FileResult, reconstruct_files
from rediffuse.dire.manifest import Manifest, Row
from rediffuse.dire.maps import MapStore
from rediffuse.dire.settings import DireSettings
from rediffuse.errors import CheckpointError
from rediffuse.files import remove_partial
from rediffuse.images.even import even_batch_size
from rediffuse.images.find import FoundImage
from rediffuse.threads import in_threads
from rediffuse.zoo.model import load

_BATCHES = 4
"""Most batches in a chunk. Fewer would pad more batches, and more would be computed again when a worker ends."""


def fill_on_cluster(
    found: Iterable[FoundImage],
    pool: Pool,
    store: MapStore,
    manifest: Manifest,
    *,
    model: str | Path,
    device: str,
    batch_size: int,
    workers: int,
    num_files: int,
) -> Generator[Row, None, None]:
    """As `folder.fill` with the results of `reconstruct_files`, with the network in each worker of the cluster.

    Workers write the results; this process adds the rows to the manifest.

    Args:
        found: the files, which every worker must be able to read by their paths.
        pool: from `cluster.choose_pool`.
        store: must be in a folder that every worker can write to.
        manifest: of the same folder.
        model: an argument of `load` that every worker can load.
        device: the device of the network in each worker.
        batch_size: see `reconstruct_files`.
        workers: threads of each worker that decode, and threads that write.
        num_files: see `reconstruct_files`.

    Yields:
        One row per file, as they are done.

    Raises:
        RediffuseError: see `fill`, `reconstruct_files` and `cluster.each`; or a worker's model is another one than that
            of the settings.
    """
    options = {"batch_size": batch_size, "workers": workers, "num_files": num_files}
    items = [(image, manifest.get(image.name)) for image in found]
    size = chunk_size(store.settings, pool, batch_size=batch_size, num_files=num_files, num_left=len(items))
    with closing(each(partial(_Reconstruct, model, device, store, options), items, pool, chunk_size=size)) as rows:
        for _, row in rows:
            manifest.add(row)
            yield row
    if isinstance(store.folder, Path):
        remove_partial(store.folder)  # those of workers that have ended


def chunk_size(
    settings: DireSettings,
    pool: Pool,
    *,
    batch_size: int,
    num_files: int,
    num_left: int,
    images_per_file: int = 1,
) -> int:
    """The number of files that a worker gets at a time: whole batches, and two chunks or more for each worker.

    Args:
        settings: those of the reconstructions.
        pool: the workers.
        batch_size: see `reconstruct_files`.
        num_files: see `reconstruct_files`.
        num_left: the files that are left to do.
        images_per_file: an image and its changed copies.
    """
    rows_per_file = images_per_file * (settings.num_windows or 1)
    per_batch = max(1, even_batch_size(batch_size, num_files * rows_per_file) // rows_per_file)
    return per_batch * max(1, min(_BATCHES, num_left // (2 * pool.num_workers * per_batch)))


class _Reconstruct:
    """A `cluster.Work`."""

    def __init__(self, model: str | Path, device: str, store: MapStore, options: dict[str, Any]) -> None:
        self._model = load(model, device=device)
        self._store = store
        self._options = options
        if self._model.provenance.sha256 != store.settings.model_sha256:
            raise CheckpointError(f"{model}: a worker of the cluster has another model of this name")

    def __call__(self, items: Sequence[tuple[FoundImage, Row | None]]) -> Iterator[Row]:
        previous = {image.name: row for image, row in items}
        files = [image for image, _ in items]
        results = reconstruct_files(self._model, files, self._store.settings, **self._options)

        def kept(result: FileResult) -> Row:
            return keep(result, self._store, previous[result.found.name])

        workers = self._options["workers"]
        with closing(results):
            yield from in_threads(kept, results, workers, ahead=workers)

    def left_out(self, item: tuple[FoundImage, Row | None]) -> Row:
        image, previous = item
        return keep(FileResult(found=image, reason=f"{image.source}: {LEFT_OUT}"), self._store, previous)
