"""Find the files of a job that are not done yet, and write results to a folder while the model computes."""

import contextlib
import hashlib
from collections.abc import Generator, Iterator, Mapping, Sequence

from rediffuse.dire.job import FileResult, in_threads
from rediffuse.dire.manifest import Manifest, Row
from rediffuse.dire.maps import MapStore
from rediffuse.dire.settings import DireSettings
from rediffuse.errors import InputError
from rediffuse.images.changes import ChangedImage
from rediffuse.images.decode import printable
from rediffuse.images.find import FoundImage, MemoryImage
from rediffuse.images.windows import Window
from rediffuse.records import digest


def unfinished(
    found: Sequence[FoundImage],
    store: MapStore,
    manifest: Manifest,
    *,
    labels: Mapping[str, int] | None = None,
    workers: int = 2,
) -> list[FoundImage]:
    """The files that are not done yet, in their order.

    A file is done if the manifest has a row without an error for its name, content (SHA-256), settings and class, and
    if all its files in `store` are whole. A file that failed before is tried again, since the cause may be corrected.

    Raises:
        InputError: the folder holds the results of another file, of another path and content, under the same name.
    """
    settings = digest(store.settings)

    def is_done(image: FoundImage) -> bool:
        row = manifest.get(image.name)
        label = None if labels is None else labels[image.name]
        if row is None or row.status != "done":
            return False
        is_same = row.sha256 == _sha256(image)
        if not is_same and row.path != _path(image):
            raise InputError(
                f"{image.source}: {store.folder} holds the results of another file of this name, {row.path}; "
                "give another folder, or --force to replace them"
            )
        return is_same and (row.settings, row.label) == (settings, label) and store.holds(image.name)

    done = in_threads(is_done, found, workers, ahead=64)
    return [image for image, is_one in zip(found, done, strict=True) if not is_one]


def fill(
    results: Generator[FileResult, None, None], store: MapStore, manifest: Manifest, *, workers: int = 2
) -> Iterator[Row]:
    """Write results to `store` and `manifest` in threads, while the next ones are computed.

    Yields:
        One row per result, in their order. A row is added to the manifest after its files are on the disk.

    Raises:
        StorageError: a result could not be written; nothing more is computed, and earlier results are kept.
        RediffuseError: an error that `results` raises.
    """

    def keep(result: FileResult) -> Row:
        row = _row(result, store.settings)
        previous = manifest.get(row.name)
        if previous is not None and (previous.sha256, previous.label) != (row.sha256, row.label):
            store.remove(row.name)  # results of the file's earlier content
        if result.reconstruction is not None:
            store.write(row.name, result.reconstruction)
        manifest.add(row)
        return row

    with contextlib.closing(results):
        yield from in_threads(keep, results, workers, ahead=workers)


def _row(result: FileResult, settings: DireSettings) -> Row:
    lpips = result.reconstruction.lpips if result.reconstruction else None
    width, height = result.meta.size if result.meta else (None, None)
    done = result.reconstruction is not None
    return Row(
        name=result.found.name,
        path=_path(result.found),
        sha256=result.meta.sha256 if result.meta else None,
        width=width,
        height=height,
        codec=result.meta.codec if result.meta else None,
        label=result.label,
        settings=digest(settings),
        mean_error=result.reconstruction.map.values.mean().item() if result.reconstruction else None,
        status="done" if done else "failed",
        reason=result.reason,
        lpips=None if lpips is None else lpips[:, 1].mean().item(),
        windows=_places(result.reconstruction.windows) if result.reconstruction else None,
    )


def _places(windows: Sequence[Window]) -> str | None:
    return " ".join(f"{window.top},{window.left}" for window in windows) or None


def _path(image: FoundImage | MemoryImage | ChangedImage) -> str:
    """The path of a file, which does not depend on the working directory."""
    return printable(image.path.absolute()) if isinstance(image, FoundImage) else image.source


def _sha256(image: FoundImage) -> str | None:
    try:
        with image.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None  # so it is not done, and decoding it reports the error
