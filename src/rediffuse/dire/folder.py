"""Find the files of a job that are not done yet, and write results to a folder while the model computes."""

import contextlib
from collections.abc import Callable, Generator, Iterable, Sequence

from rediffuse.dire.job import FileResult
from rediffuse.dire.manifest import Manifest, Row
from rediffuse.dire.maps import MapStore
from rediffuse.dire.settings import DireSettings
from rediffuse.errors import InputError
from rediffuse.images.decode import printable
from rediffuse.images.find import FoundImage
from rediffuse.images.windows import Window
from rediffuse.records import digest
from rediffuse.threads import in_threads


def unfinished(
    found: Iterable[FoundImage],
    store: MapStore,
    manifest: Manifest,
    *,
    workers: int = 2,
    done: Callable[[], object] = lambda: None,
) -> Generator[FoundImage, None, None]:
    """The files that are not done yet, one after the other in their order.

    A file is done if the manifest has a row without an error for its name, content (SHA-256), settings and class, and
    if all its files in `store` are whole. A file that failed before is tried again, since the cause may be corrected.

    Args:
        found: from `images.find`, with their classes.
        store: where the results are.
        manifest: the manifest of its folder.
        workers: threads that read the files, at least 1.
        done: called for each file that is done.

    Raises:
        InputError: the folder holds the results of another file, of another path and content, under the same name.
    """
    settings = digest(store.settings)

    def is_done(image: FoundImage) -> tuple[FoundImage, bool]:
        row = manifest.get(image.name)
        if row is None or row.status != "done":
            return image, False
        is_same = row.sha256 == image.sha256()
        if not is_same and row.path != _path(image):
            raise InputError(
                f"{image.source}: {store.folder} holds the results of another file of this name, {row.path}; "
                "give another folder, or --force to replace them"
            )
        is_same = is_same and (row.settings, row.label) == (settings, image.label)
        return image, is_same and store.holds(image.name, row.place)

    with contextlib.closing(in_threads(is_done, found, workers, ahead=64)) as checked:
        for image, is_one in checked:
            if is_one:
                done()
            else:
                yield image


def fill(
    results: Generator[FileResult, None, None], store: MapStore, manifest: Manifest, *, workers: int = 2
) -> Generator[Row, None, None]:
    """Write results to `store` and `manifest` in threads, while the next ones are computed.

    Yields:
        One row per result, in their order. A row is added to the manifest after its files are on the disk.

    Raises:
        StorageError: a result could not be written; nothing more is computed, and earlier results are kept.
        RediffuseError: an error that `results` raises.
    """

    def written(result: FileResult) -> Row:
        row = keep(result, store, manifest.get(result.found.name))
        manifest.add(row)
        return row

    with contextlib.closing(results):
        yield from in_threads(written, results, workers, ahead=workers)


def keep(result: FileResult, store: MapStore, previous: Row | None) -> Row:
    """Write the files of one result, and return its row for the manifest.

    Args:
        result: from `reconstruct_files`.
        store: where the files are written.
        previous: the row that the manifest has for this name; files of earlier content are removed.

    Raises:
        StorageError: they could not be written.
    """
    row = _row(result, store.settings)
    if previous is not None and (previous.sha256, previous.label) != (row.sha256, row.label):
        store.remove(row.name)
        previous = None
    if result.reconstruction is not None:
        return row.at(store.write(row.name, result.reconstruction, previous and previous.place))
    return row


def _row(result: FileResult, settings: DireSettings) -> Row:
    assert isinstance(result.found, FoundImage), "images in memory have no path"
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
        label=result.found.label if done else None,
        settings=digest(settings),
        mean_error=result.reconstruction.map.values.mean().item() if result.reconstruction else None,
        status="done" if done else "failed",
        reason=result.reason,
        lpips=None if lpips is None else lpips[:, 1].mean().item(),
        windows=places(result.reconstruction.windows) if result.reconstruction else None,
    )


def places(windows: Sequence[Window]) -> str | None:
    """The places of windows as the manifest has them; see `Row.windows`."""
    return " ".join(f"{window.top},{window.left}" for window in windows) or None


def _path(image: FoundImage) -> str:
    """The path of a file, which does not depend on the working directory."""
    return printable(image.absolute().path)
