"""Reconstruct many files: threads decode ahead of the model; the result of a file that cannot be read is a reason."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from rediffuse.dire.reconstruct import Reconstruction, reconstruct
from rediffuse.dire.settings import DireSettings
from rediffuse.errors import ConfigError, ImageError
from rediffuse.images.crop import CROPS
from rediffuse.images.decode import decode, pixels_of
from rediffuse.images.find import FoundImage, MemoryImage
from rediffuse.images.tensors import to_tensor
from rediffuse.zoo.model import DiffusionModel

S = TypeVar("S")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class FileMeta:
    """Facts about a file that could be decoded."""

    sha256: str
    """SHA-256 of the file's bytes, in hex."""
    codec: str
    size: tuple[int, int]
    """(width, height) as stored, in pixels."""


@dataclass(frozen=True, kw_only=True)
class LoadedFile:
    """The network's input from a file or an image in memory, or the reason why there is none."""

    found: FoundImage | MemoryImage
    meta: FileMeta | None = None
    """None where the file could not be decoded, or where there is none."""
    x_0: Tensor | None = None
    """(3, S, S) float32 in [-1, 1]."""
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class FileResult:
    """A file's reconstruction, or the reason why there is none."""

    found: FoundImage | MemoryImage
    meta: FileMeta | None = None
    """None where the file could not be decoded, or where there is none."""
    label: int | None = None
    """The class that was given to a class-conditional model."""
    reconstruction: Reconstruction | None = None
    """The reconstruction of one image (N = 1), on the CPU."""
    reason: str | None = None
    """The error in one line; None if there is a reconstruction."""


def load_file(found: FoundImage | MemoryImage, settings: DireSettings) -> LoadedFile:
    """Decode and crop one file; an unreadable file gives a `LoadedFile` with the reason. Can run in any thread."""
    meta = None
    try:
        if isinstance(found, MemoryImage):
            pixels = pixels_of(found.image, found.name)
        else:
            image = decode(found.path)
            pixels, meta = image.pixels, FileMeta(sha256=image.sha256, codec=image.codec, size=image.size)
    except ImageError as error:
        return LoadedFile(found=found, reason=str(error))
    return LoadedFile(found=found, meta=meta, x_0=to_tensor(CROPS[settings.crop](pixels, settings.image_size)))


def reconstruct_batch(
    model: DiffusionModel,
    loaded: Sequence[LoadedFile],
    settings: DireSettings,
    *,
    labels: Mapping[str, int] | None = None,
) -> list[FileResult]:
    """Reconstruct one batch of loaded files; returns one result per file, in order.

    Args:
        model: see `reconstruct`.
        settings: see `reconstruct`.
        loaded: from `load_file`; a file without an image gives a result with its reason.
        labels: the class of each file by `FoundImage.name`, for a class-conditional model.

    Raises:
        ConfigError, SettingsMismatch: see `reconstruct`.
    """
    images = [file.x_0 for file in loaded if file.x_0 is not None]
    if not images:
        return [FileResult(found=file.found, meta=file.meta, reason=file.reason) for file in loaded]
    classes = None if labels is None else [labels[file.found.name] for file in loaded if file.x_0 is not None]
    batch = reconstruct(model, torch.stack(images), settings, labels=classes).to("cpu")
    singles = (batch[index : index + 1] for index in range(len(batch)))
    return [_result(file, singles, settings, labels) for file in loaded]


def reconstruct_files(
    model: DiffusionModel,
    files: Iterable[FoundImage | MemoryImage],
    settings: DireSettings,
    *,
    batch_size: int,
    labels: Mapping[str, int] | None = None,
    workers: int = 2,
) -> Generator[FileResult, None, None]:
    """Reconstruct files in batches; unreadable files do not count, and the last batch may be smaller.

    Args:
        model: see `reconstruct`.
        settings: see `reconstruct`.
        files: from `images.find.find_images` or `gather_images`; an iterator is read as fast as the files are decoded.
        batch_size: images per call of the network, at least 1. It affects results only by rounding.
        labels: see `reconstruct_batch`.
        workers: threads that decode ahead, at least 1.

    Returns:
        One result per file, in the order of `files`. Closing the generator stops the work.

    Raises:
        ConfigError: immediately if `batch_size` or `workers` is below 1; later if a batch does not fit in the GPU.
        ConfigError, SettingsMismatch: see `reconstruct`.
    """
    for name, number in (("batch_size", batch_size), ("workers", workers)):
        if number < 1:
            raise ConfigError(f"{name}={number}: at least 1 is needed")
    loaded = in_threads(lambda found: load_file(found, settings), files, workers, 2 * batch_size)
    return _results(model, loaded, settings, batch_size, labels)


def check_labels(model: DiffusionModel, files: Iterable[FoundImage], labels: Mapping[str, int] | None) -> None:
    """Check that there is a class for every file if the model is class-conditional, and otherwise none.

    Raises:
        ConfigError: labels are missing, not allowed or outside the model's classes; names the first file.
    """
    if model.num_classes is None:
        if labels is not None:
            raise ConfigError("labels: this model is not class-conditional; leave them out")
        return
    allowed = f"this class-conditional model needs a class from 0 to {model.num_classes - 1} per file"
    for found in files:
        label = None if labels is None else labels.get(found.name)
        if label is None or not 0 <= label < model.num_classes:
            given = "no class is given" if label is None else f"class {label} is given"
            raise ConfigError(f"{found.name}: {given}; {allowed}")


def in_threads(function: Callable[[S], R], items: Iterable[S], workers: int, ahead: int) -> Iterator[R]:
    """`map(function, items)` in threads; results come in order, and up to `ahead` items are computed in advance.

    An error of `function` is raised in the place of its item's result. After an error, or when the iterator is closed,
    no further item is started.
    """
    pool = ThreadPoolExecutor(workers)
    begun: deque[Future[R]] = deque()
    try:
        for item in items:
            begun.append(pool.submit(function, item))
            if len(begun) > ahead:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _results(
    model: DiffusionModel,
    loaded: Iterable[LoadedFile],
    settings: DireSettings,
    batch_size: int,
    labels: Mapping[str, int] | None,
) -> Generator[FileResult, None, None]:
    for batch in _full_batches(loaded, batch_size):
        try:
            results = reconstruct_batch(model, batch, settings, labels=labels)
        except torch.OutOfMemoryError:
            raise ConfigError(
                f"batch_size={batch_size}: {settings.image_size} px images do not fit in the memory of {model.device}; "
                "choose a smaller one"
            ) from None
        yield from results


def _full_batches(loaded: Iterable[LoadedFile], batch_size: int) -> Iterator[list[LoadedFile]]:
    """Groups of files with `batch_size` images each, and failed files between them; the last may have fewer images."""
    batch: list[LoadedFile] = []
    images = 0
    for file in loaded:
        batch.append(file)
        images += file.x_0 is not None
        if images in (0, batch_size):  # no incomplete batch: yield failed files immediately
            yield batch
            batch, images = [], 0
    if batch:
        yield batch


def _result(
    file: LoadedFile, singles: Iterator[Reconstruction], settings: DireSettings, labels: Mapping[str, int] | None
) -> FileResult:
    if file.x_0 is None:
        return FileResult(found=file.found, meta=file.meta, reason=file.reason)
    label = None if labels is None else labels[file.found.name]
    reconstruction = next(singles)
    if not reconstruction.is_finite.all():
        source = file.found.source
        reason = f"{source}: the reconstruction is not finite: precision={settings.precision} is too low for it"
        return FileResult(found=file.found, meta=file.meta, label=label, reason=reason)
    return FileResult(found=file.found, meta=file.meta, label=label, reconstruction=reconstruction)
