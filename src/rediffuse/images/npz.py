"""Batches of images in guided-diffusion's `.npz` format: `arr_0` holds the pixels, `arr_1` the classes, if any."""

import math
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, cast

import numpy as np

from rediffuse.errors import InputError

_SAMPLES = "samples"


def write_npz(
    path: Path, images: Iterable[np.ndarray], shape: tuple[int, int, int, int], labels: Sequence[int] | None = None
) -> None:
    """Write a batch image by image, so that it need not fit into memory; equal batches give equal files.

    Args:
        path: the file, replaced if it exists; for an atomic write give a path from `files.atomic_write`.
        images: N images, uint8 (H, W, 3).
        shape: (N, H, W, 3).
        labels: the class of each image.
    """
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open(zipfile.ZipInfo("arr_0.npy"), "w", force_zip64=True) as member:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(cast(BinaryIO, member), header)
            num_written = 0
            for image in images:
                assert image.dtype == np.uint8
                assert image.shape == shape[1:]
                member.write(image.tobytes())
                num_written += 1
            assert num_written == shape[0]
        if labels is not None:
            assert len(labels) == shape[0]
            with archive.open(zipfile.ZipInfo("arr_1.npy"), "w") as member:
                np.lib.format.write_array(cast(BinaryIO, member), np.asarray(labels, np.int64), allow_pickle=False)


class NpzBatch:
    """A batch whose images are read when needed, because 50,000 images do not fit into memory.

    Args:
        path: an `.npz` file.

    Raises:
        InputError: the file is missing or no .npz, or its `arr_0` has another shape or type; names what it holds.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with open_npz(path, _SAMPLES) as archive:
            if _member("arr_0") not in archive.namelist():
                raise InputError(f"{path}: holds no arr_0; an .npz of samples is needed")
            with archive.open(_member("arr_0")) as file:
                shape, is_fortran, dtype = _header(file)
        if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or not shape[0]:
            raise InputError(f"{path}: arr_0 is {shape} {dtype}; (N, H, W, 3) uint8 is needed")
        if is_fortran:
            raise InputError(f"{path}: arr_0 is stored in column order; save numpy.ascontiguousarray(arr_0) instead")
        self.shape = shape

    def __len__(self) -> int:
        return self.shape[0]

    def batches(self, batch_size: int) -> Iterator[np.ndarray]:
        """uint8 (N, H, W, 3), N at most `batch_size`, read-only, in the file's order.

        Raises InputError where the file is damaged or ends early.
        """
        num_bytes = math.prod(self.shape[1:])
        with open_npz(self.path, _SAMPLES) as archive, archive.open(_member("arr_0")) as file:
            _header(file)
            for first in range(0, len(self), batch_size):
                num_images = min(batch_size, len(self) - first)
                content = file.read(num_images * num_bytes)
                if len(content) < num_images * num_bytes:
                    raise InputError(f"{self.path}: arr_0 ends early; copy or download the file again")
                yield np.frombuffer(content, np.uint8).reshape(num_images, *self.shape[1:])

    def labels(self) -> np.ndarray | None:
        """The classes, int64 (N,); None without `arr_1`. Raises InputError where they are not integers."""
        with open_npz(self.path, _SAMPLES) as archive:
            labels = read_array(archive, "arr_1")
        if labels is None:
            return None
        if labels.shape != (len(self),) or labels.dtype.kind not in "iu":
            given = f"arr_1 is {labels.shape} {labels.dtype}"
            raise InputError(f"{self.path}: {given}; ({len(self)},) integers are needed")
        return labels.astype(np.int64)


def read_npz(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """All pixels, uint8 (N, H, W, 3), and the classes, int64 (N,), of a batch; raises as `NpzBatch` does."""
    batch = NpzBatch(path)
    [pixels] = batch.batches(len(batch))
    return pixels, batch.labels()


@contextmanager
def open_npz(path: Path, what: str) -> Iterator[zipfile.ZipFile]:
    """Open an `.npz` of `what`. A missing, damaged or other file raises InputError, also inside the block."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (EOFError, ValueError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: cannot be read as an .npz of {what}: {error}") from None


def read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray | None:
    """Read one complete array of an archive; None if it has none of that name."""
    if _member(name) not in archive.namelist():
        return None
    with archive.open(_member(name)) as file:
        return np.lib.format.read_array(cast(BinaryIO, file), allow_pickle=False)


def _member(name: str) -> str:
    return f"{name}.npy"


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read the header of a `.npy` array: shape, whether it is in column order, type."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)
