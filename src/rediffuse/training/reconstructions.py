"""Reconstructions on disk: a cache for a search that uses them several times and may be resumed, and stored maps."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from rediffuse import files
from rediffuse.dire.folder import places
from rediffuse.dire.job import FileResult, load_file, reconstruct_files
from rediffuse.dire.manifest import Row, looked_up
from rediffuse.dire.maps import MapStore
from rediffuse.dire.reconstruct import Reconstruction
from rediffuse.dire.settings import DireSettings, require_same
from rediffuse.errors import InputError
from rediffuse.images.encode import is_whole
from rediffuse.images.find import FoundImage
from rediffuse.images.windows import Window
from rediffuse.records import digest
from rediffuse.threads import in_threads
from rediffuse.zoo.model import DiffusionModel

_WINDOWS = "windows"


@dataclass(frozen=True, kw_only=True)
class ReconstructionCache:
    """Stores reconstructions exactly, by the digest of the settings and the SHA-256 of the image."""

    folder: Path
    model: DiffusionModel
    batch_size: int
    workers: int

    def reconstruct(self, found: Sequence[FoundImage], settings: DireSettings) -> Iterator[FileResult]:
        """One result per file: first those in the cache, then the others as they are computed.

        Raises:
            InputError: a file of the cache is damaged; names the file.
            ConfigError, SettingsMismatch, StorageError: see `dire.job.reconstruct_files` and `files.atomic_write`.
        """
        missing = []
        for image in found:
            content = image.sha256()
            path = None if content is None else self._path(content, settings)
            known = _read(image, path, settings) if path is not None and is_whole(path) else None
            if known is not None:
                yield known
            else:
                missing.append(image)
        for result in reconstruct_files(
            self.model,
            missing,
            settings,
            batch_size=self.batch_size,
            workers=self.workers,
            num_files=len(found),
        ):
            if result.reconstruction is not None and result.meta is not None:
                # The file may have changed since; this is the content that was reconstructed.
                _write(self._path(result.meta.sha256, settings), result.reconstruction)
            yield result

    def _path(self, content: str, settings: DireSettings) -> Path:
        """The path of the result of a file with this SHA-256."""
        return self.folder / digest(settings) / content[:2] / f"{content}.safetensors"


@dataclass(frozen=True, kw_only=True)
class StoredMaps:
    """The maps of a folder of `rediffuse dire`, from which the inputs `OF_MAPS` are measured without a network."""

    folder: Path
    model: DiffusionModel
    workers: int

    def reconstruct(self, found: Sequence[FoundImage], settings: DireSettings) -> Iterator[FileResult]:
        """One result per file, in order, whose reconstruction has the absolute error of the map.

        The sign of the error and x_T are not stored: the error is positive, and x_T is NaN.

        Raises:
            InputError: the folder has no map of a file under its name, or the map is damaged; names the file.
            SettingsMismatch: the maps have other settings.
        """
        store = MapStore.open(self.folder)
        require_same(given=settings, expected=store.settings, owner=str(self.folder))

        def result(item: tuple[FoundImage, Row | None]) -> FileResult:
            return _of_map(*item, store)

        with looked_up(self.folder) as row_of:
            items = ((image, row_of(image.name)) for image in found)
            with closing(in_threads(result, items, self.workers, ahead=64)) as results:
                yield from results


def _of_map(image: FoundImage, row: Row | None, store: MapStore) -> FileResult:
    loaded = load_file(image, store.settings)
    if loaded.x_0 is None or loaded.meta is None:
        return FileResult(found=image, reason=loaded.reason)
    if row is None or (row.sha256, row.settings) != (loaded.meta.sha256, digest(store.settings)):
        raise InputError(
            f"{image.source}: {store.folder} has no map of this content under the name {image.name}; "
            "`rediffuse dire` on the folder or list of --data makes it"
        )
    if row.status == "failed":
        return FileResult(found=image, meta=loaded.meta, reason=row.reason)
    values = store.read(image.name, row.place).values
    if values.shape != loaded.x_0.shape or row.windows != places(loaded.windows):
        raise InputError(f"{image.source}: {store.folder} has a map of other windows than this version chooses")
    reconstruction = Reconstruction(
        x_0=loaded.x_0,
        x_T=torch.full_like(loaded.x_0, torch.nan),
        x_0_hat=loaded.x_0 - values,
        settings=store.settings,
        windows=loaded.windows,
    )
    return FileResult(found=image, meta=loaded.meta, reconstruction=reconstruction)


def _write(path: Path, reconstruction: Reconstruction) -> None:
    # The image itself is read from its file.
    tensors = {name: tensor.contiguous() for name, tensor in reconstruction.tensors.items() if name != "x_0"}
    if reconstruction.windows:
        tensors[_WINDOWS] = _places(reconstruction.windows)
    files.write_bytes(path, safetensors.torch.save(tensors))


def _read(image: FoundImage, path: Path, settings: DireSettings) -> FileResult | None:
    """The result of a file in the cache; None if the file has changed since the path was chosen by its content."""
    loaded = load_file(image, settings)
    if loaded.x_0 is None:
        return FileResult(found=image, reason=loaded.reason)
    if loaded.meta is None or loaded.meta.sha256 != path.stem:
        return None
    try:
        tensors = safetensors.torch.load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read ({error}); remove it") from None
    needed = {"x_T", "x_0_hat", *(["second"] if settings.second_view else [])}
    if not needed <= tensors.keys() or tensors["x_0_hat"].shape != loaded.x_0.shape:
        raise InputError(f"{path}: does not hold a reconstruction of {settings.image_size} px; remove it")
    if loaded.windows and not torch.equal(tensors.get(_WINDOWS, torch.empty(0)), _places(loaded.windows)):
        raise InputError(f"{path}: holds other windows of the image than this version chooses; remove it")
    kept: dict[str, Any] = {name: tensors[name] for name in (*needed, "z_0", "z_0_hat", "lpips") if name in tensors}
    reconstruction = Reconstruction(x_0=loaded.x_0, settings=settings, windows=loaded.windows, **kept)
    return FileResult(found=image, meta=loaded.meta, reconstruction=reconstruction)


def _places(windows: Sequence[Window]) -> Tensor:
    return torch.tensor([(window.top, window.left) for window in windows])  # (N, 2)
