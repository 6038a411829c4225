"""A cache of reconstructions on disk, for a search that uses them several times and may be killed and resumed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from rediffuse import files
from rediffuse.dire.job import FileResult, load_file, reconstruct_files
from rediffuse.dire.reconstruct import Reconstruction
from rediffuse.dire.settings import DireSettings
from rediffuse.errors import InputError
from rediffuse.images.encode import is_whole
from rediffuse.images.find import FoundImage
from rediffuse.images.windows import Window
from rediffuse.records import digest
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
        paths = {image.name: self._path(image, settings) for image in found}
        missing = []
        for image in found:
            path = paths[image.name]
            if path is not None and is_whole(path):
                yield _read(image, path, settings)
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
            path = paths[result.found.name]
            if result.reconstruction is not None and path is not None:
                _write(path, result.reconstruction)
            yield result

    def _path(self, image: FoundImage, settings: DireSettings) -> Path | None:
        """The path of a file's result in the cache; None if the file cannot be read."""
        content = image.sha256()
        if content is None:
            return None
        return self.folder / digest(settings) / content[:2] / f"{content}.safetensors"


def _write(path: Path, reconstruction: Reconstruction) -> None:
    # The image itself is read from its file.
    tensors = {name: tensor.contiguous() for name, tensor in reconstruction.tensors.items() if name != "x_0"}
    if reconstruction.windows:
        tensors[_WINDOWS] = _places(reconstruction.windows)
    files.write_bytes(path, safetensors.torch.save(tensors))


def _read(image: FoundImage, path: Path, settings: DireSettings) -> FileResult:
    loaded = load_file(image, settings)
    if loaded.x_0 is None:
        return FileResult(found=image, reason=loaded.reason)
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
