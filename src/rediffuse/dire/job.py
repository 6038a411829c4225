"""Reconstruct many files: threads decode ahead of the model; the result of a file that cannot be read is a reason."""

from collections.abc import Generator, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rediffuse.dire.reconstruct import Reconstruction, Reconstructor, joined, network_calls
from rediffuse.dire.settings import DireSettings
from rediffuse.errors import ImageError
from rediffuse.images.changes import ChangedImage
from rediffuse.images.decode import decode, decode_bytes, pixels_of
from rediffuse.images.even import even_batch_size
from rediffuse.images.find import FoundImage, MemoryImage
from rediffuse.images.limits import Limits
from rediffuse.images.original import Original, original_of
from rediffuse.images.tensors import to_tensor
from rediffuse.images.windows import Window, network_inputs
from rediffuse.models.config import BatchSize
from rediffuse.records import require_range
from rediffuse.threads import in_threads
from rediffuse.zoo.batch_size import choose_batch_size
from rediffuse.zoo.model import DiffusionModel
from rediffuse.zoo.parts import Parts
from rediffuse.zoo.streams import in_streams, num_streams


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

    found: FoundImage | MemoryImage | ChangedImage
    meta: FileMeta | None = None
    """None where the file could not be decoded, and for images in memory and changed copies, which are no files."""
    x_0: Tensor | None = None
    """(N, 3, S, S) float32 in [-1, 1]: the image, N = 1, or its windows."""
    windows: tuple[Window, ...] = ()
    """Where the windows lie in the image; empty where it is one square."""
    original: Original | None = None
    """What a person is shown of the image; None unless it was asked for."""
    reason: str | None = None

    @property
    def num_rows(self) -> int:
        """N; 0 where there is no image."""
        return 0 if self.x_0 is None else len(self.x_0)


@dataclass(frozen=True, kw_only=True)
class FileResult:
    """A file's reconstruction, or the reason why there is none."""

    found: FoundImage | MemoryImage | ChangedImage
    meta: FileMeta | None = None
    """None where the file could not be decoded, and for images in memory and changed copies, which are no files."""
    reconstruction: Reconstruction | None = None
    """The reconstruction of one image, on the CPU: N = 1, or the number of its windows."""
    original: Original | None = None
    """What a person is shown of the image; None unless it was asked for."""
    reason: str | None = None
    """The error in one line; None if there is a reconstruction."""


def load_file(
    found: FoundImage | MemoryImage | ChangedImage, settings: DireSettings, *, with_original: bool = False
) -> LoadedFile:
    """Decode and crop one file; an unreadable file gives a `LoadedFile` with the reason. Can run in any thread."""
    meta, content = None, None
    try:
        if isinstance(found, FoundImage):
            content = found.read()
            image = decode_bytes(content, found.source, found.limits)
            pixels, meta = image.pixels, FileMeta(sha256=image.sha256, codec=image.codec, size=image.size)
        else:
            pixels = _pixels(found)
        squares, windows = network_inputs(pixels, settings.image_size, settings.crop, found.source)
        original = original_of(pixels, content, found.source) if with_original else None
    except ImageError as error:
        return LoadedFile(found=found, meta=meta, reason=str(error))
    return LoadedFile(found=found, meta=meta, x_0=to_tensor(squares), windows=windows, original=original)


def reconstruct_files(
    model: DiffusionModel,
    files: Iterable[FoundImage | MemoryImage | ChangedImage],
    settings: DireSettings,
    *,
    batch_size: BatchSize,
    workers: int = 2,
    num_files: int | None = None,
    with_originals: bool = False,
    folder: Path | None = None,
) -> Generator[FileResult, None, None]:
    """Reconstruct files in batches of equal size; unreadable files do not count, and the last batch is padded.

    With `crop="windows:N"` the windows of several images share a batch, and those of one image may need several.

    Args:
        model: see `reconstruct`.
        settings: see `reconstruct`.
        files: from `images.find`, or changed copies of these; with their classes for a class-conditional model.
        batch_size: most images, or windows of images, per call of the network, at least 1, or `auto`: see
            `zoo.batch_size`. It affects results only by rounding. If they do not fit in the device's memory, it is
            halved.
        workers: threads that decode ahead, at least 1.
        num_files: number of files in the whole job, of which `files` are left, so that a resumed job has the same
            batch size (see `images.even`). Any number from `batch_size`^2 on gives the same, so longer jobs need not be
            counted. None for a sequence of `files` that is the whole job.
        with_originals: also keep a small copy of each image, and the facts of its file, for a report. Changed copies
            have none.
        folder: the folder of the results, where the batch size is recorded.

    Returns:
        One result per file, in the order of `files`. Closing the generator stops the work.

    Raises:
        ConfigError: immediately if `batch_size` or `workers` is below 1; later if one image does not fit in the GPU.
        ConfigError, SettingsMismatch: see `reconstruct`.
    """
    require_range("workers", workers, 1)
    if num_files is None:
        assert isinstance(files, Sized), "an iterator of files needs their number"
        num_files = len(files)
    num_rows = num_files * (settings.num_windows or 1)
    largest = choose_batch_size(
        batch_size,
        model,
        settings,
        settings.precision,
        num_images=num_rows,
        num_calls=network_calls(model, settings) // (settings.num_windows or 1),
        folder=folder,
    )
    size = even_batch_size(largest, num_rows)

    def load(found: FoundImage | MemoryImage | ChangedImage) -> LoadedFile:
        shown = with_originals and not isinstance(found, ChangedImage)
        return load_file(found, settings, with_original=shown)

    ahead = max(workers, 2 * size // (settings.num_windows or 1))  # files for two batches
    loaded = in_threads(load, files, workers, ahead)
    return _results(model, loaded, settings, size)


def _pixels(found: FoundImage | MemoryImage | ChangedImage) -> np.ndarray:
    if isinstance(found, FoundImage):
        return decode(found.path, found.limits).pixels
    if isinstance(found, MemoryImage):
        return pixels_of(found.image, found.name)
    limits = found.original.limits if isinstance(found.original, FoundImage) else Limits()
    return pixels_of(found.pixels(_pixels(found.original)), found.source, limits)  # which checks the size of the copy


@dataclass(frozen=True)
class _Part:
    """Rows of one file's x_0 that are in one batch; none of a file without an image."""

    file: LoadedFile
    rows: slice

    @property
    def ends(self) -> bool:
        """Whether these are the file's last rows."""
        return self.rows.stop == self.file.num_rows


def _results(
    model: DiffusionModel,
    loaded: Iterable[LoadedFile],
    settings: DireSettings,
    batch_size: int,
) -> Generator[FileResult, None, None]:
    reconstruct, in_parts = Reconstructor(model, settings), Parts(batch_size, model.device)

    def compute(batch: list[_Part]) -> tuple[list[_Part], list[Reconstruction | None]]:
        return batch, _reconstructed(reconstruct, in_parts, batch, batch_size, model.num_classes is not None)

    begun: list[Reconstruction] = []  # the parts of a file that goes on in the next batch
    batches = _full_batches(loaded, batch_size)
    for batch, parts in in_streams(compute, batches, num_streams(model), reconstruct.stop):
        for part, reconstruction in zip(batch, parts, strict=True):
            begun += [] if reconstruction is None else [reconstruction]
            if part.ends:
                yield _result(model, part.file, begun)
                begun = []


def _full_batches(loaded: Iterable[LoadedFile], batch_size: int) -> Iterator[list[_Part]]:
    """Batches of `batch_size` rows, whatever failures lie between; the last may hold fewer.

    The windows of an image may lie in several batches.
    """
    batch: list[_Part] = []
    room = batch_size
    for file in loaded:
        begin = 0
        while True:
            end = min(begin + room, file.num_rows)
            batch.append(_Part(file, slice(begin, end)))
            room -= end - begin
            if room in (0, batch_size):  # nothing to wait for: failures go out at once
                yield batch
                batch, room = [], batch_size
            if end == file.num_rows:
                break
            begin = end
    if batch:
        yield batch


def _reconstructed(
    reconstruct: Reconstructor,
    in_parts: Parts,
    batch: Sequence[_Part],
    batch_size: int,
    has_classes: bool,
) -> list[Reconstruction | None]:
    """One reconstruction per part, on the CPU; None for a file without an image."""
    rows = [part.file.x_0[part.rows] for part in batch if part.file.x_0 is not None]
    if not rows:
        return [None] * len(batch)
    num_missing = batch_size - sum(map(len, rows))
    rows.append(rows[0][:1].expand(num_missing, -1, -1, -1))
    labels = [part.file.found.label for part in batch for _ in range(part.rows.stop - part.rows.start)]
    labels += labels[:1] * num_missing
    classes = [label for label in labels if label is not None] if has_classes else []
    x_0 = torch.cat(rows)

    def compute(some: slice) -> Reconstruction:
        return reconstruct(x_0[some], classes[some] or None).to("cpu")

    together = joined([reconstruction for _, reconstruction in in_parts(compute, len(x_0))])
    reconstructions, begin = [], 0
    for part in batch:
        end = begin + part.rows.stop - part.rows.start
        reconstructions.append(together[begin:end] if end > begin else None)
        begin = end
    return reconstructions


def _result(model: DiffusionModel, file: LoadedFile, parts: Sequence[Reconstruction]) -> FileResult:
    if file.x_0 is None:
        return FileResult(found=file.found, meta=file.meta, reason=file.reason)
    reconstruction = joined(parts, file.windows)
    if not reconstruction.is_finite.all():
        reason = f"{file.found.source}: the reconstruction is not finite: {_cause(model, reconstruction)}"
        return FileResult(found=file.found, meta=file.meta, reason=reason)
    return FileResult(found=file.found, meta=file.meta, reconstruction=reconstruction, original=file.original)


def _cause(model: DiffusionModel, reconstruction: Reconstruction) -> str:
    """Why a reconstruction is not finite."""
    precision = reconstruction.settings.precision
    latents = [z is not None and bool(z.isfinite().all()) for z in (reconstruction.z_0, reconstruction.z_0_hat)]
    if model.autoencoder and latents != [True, False]:  # the denoising network is between the two
        kind, part = "autoencoder", model.autoencoder
    elif precision == "fp32":
        kind, part = "model", model.network
    else:
        return f"precision={precision} may not suffice; fp32 has more"
    dtype = next(part.parameters()).dtype
    if dtype == torch.float32:
        return f"the {kind} diverges on this image"
    return f"the {kind} is in {str(dtype).removeprefix('torch.')}; float32 may suffice"
