"""Batches of images in guided-diffusion's format: `arr_0` the pixels, `arr_1` the classes where there are any."""

import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from rediffuse.errors import InputError


def write_npz(
    path: Path, images: Iterable[np.ndarray], shape: tuple[int, int, int, int], labels: Sequence[int] | None = None
) -> None:
    """Write a batch image by image, so that it need not fit into memory; equal batches give equal files.

    Args:
        path: replaced; see `files.whole` for writing it as a whole.
        images: N of uint8 (H, W, 3).
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


def read_npz(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """The pixels, uint8 (N, H, W, 3), and the classes, int64 (N,), of a batch.

    Raises:
        InputError: the file is missing, is no .npz, or its arrays are of another kind; says what it holds.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            pixels, labels = _read(archive, "arr_0"), _read(archive, "arr_1")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (EOFError, ValueError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: cannot be read as an .npz of samples: {error}") from None
    if pixels is None:
        raise InputError(f"{path}: holds no arr_0; an .npz of samples is needed")
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3 or not len(pixels):
        raise InputError(f"{path}: arr_0 is {pixels.shape} {pixels.dtype}; (N, H, W, 3) uint8 is needed")
    if labels is None:
        return pixels, None
    if labels.shape != (len(pixels),) or labels.dtype.kind not in "iu":
        raise InputError(f"{path}: arr_1 is {labels.shape} {labels.dtype}; ({len(pixels)},) whole numbers are needed")
    return pixels, labels.astype(np.int64)


def _read(archive: zipfile.ZipFile, name: str) -> np.ndarray | None:
    if f"{name}.npy" not in archive.namelist():
        return None
    with archive.open(f"{name}.npy") as member:
        return np.lib.format.read_array(cast(BinaryIO, member), allow_pickle=False)
