"""Sets of images to compare: guided-diffusion's `.npz` batches, which may bring their statistics, and image folders."""

import hashlib
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import torch

from rediffuse.errors import ConfigError, ImageError, InputError
from rediffuse.evaluation.statistics import Moments
from rediffuse.images.crop import center_crop
from rediffuse.images.decode import decode
from rediffuse.images.find import FoundImage, find_images
from rediffuse.zoo.download import sha256_of

_THREADS = 4


class Images(Protocol):
    """Images that are read as they are needed: fifty thousand of them do not fit into memory."""

    failures: list[str]
    """Reasons for the images that could not be read so far, a line each."""

    def __len__(self) -> int: ...

    def batches(self, batch_size: int) -> Iterator[np.ndarray]:
        """uint8 (N, H, W, 3), N at most `batch_size` and at least 1; in a fixed order.

        Raises InputError where the images are not of one size.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """What a path holds: images, statistics of images, or, as guided-diffusion's reference batches, both."""

    path: str
    digest: str
    """Of the files' content and of what is done to it, wherever the files lie."""
    images: Images | None
    pooled: Moments | None = None
    """Statistics of perhaps more images than there are here (`mu` and `sigma`)."""
    spatial: Moments | None = None
    """`mu_s` and `sigma_s`."""


def open_set(path: str, size: int | None = None) -> ImageSet:
    """Look at an `.npz` file, or find the images of a folder.

    Args:
        path: a file that ends in `.npz` (`arr_0`: uint8 (N, H, W, 3); or `mu`, `sigma` and perhaps `mu_s`, `sigma_s`;
            or all of them), or what `images.find.find_images` takes.
        size: scale and cut the images to squares of that side; None takes them as they are, which needs images of one
            size. Statistics that an `.npz` brings stay what they are.

    Raises:
        InputError: there is nothing, or the file holds something else; says what.
        ConfigError: `size` is below 1.
    """
    if size is not None and size < 1:
        raise ConfigError(f"size={size}: at least 1 is needed")
    if not path.lower().endswith(".npz"):
        files = ImageFiles(find_images([path]), size)
        return ImageSet(path=path, digest=files.digest(), images=files)
    if not Path(path).is_file():
        raise InputError(f"{path}: there is no such file")
    return _open_npz(Path(path), size)


@dataclass
class ImageFiles:
    """The images of a folder; see `Images`."""

    files: list[FoundImage]
    size: int | None
    failures: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.files)

    def digest(self) -> str:
        """Of the files' names and bytes, and of what is done to the pixels."""
        sha256 = hashlib.sha256(f"size={self.size}\n".encode())
        for file in self.files:
            content = sha256_of(file.path) if file.path.is_file() else "unreadable"
            sha256.update(f"{file.name}\t{content}\n".encode())
        return sha256.hexdigest()

    def batches(self, batch_size: int) -> Iterator[np.ndarray]:
        shape: tuple[int, ...] | None = None
        with ThreadPoolExecutor(_THREADS) as pool:
            for first in range(0, len(self.files), batch_size):
                files = self.files[first : first + batch_size]
                batch = []
                for file, pixels in zip(files, pool.map(self._pixels, files), strict=True):
                    if isinstance(pixels, ImageError):
                        self.failures.append(str(pixels))
                        continue
                    shape = shape or pixels.shape
                    if pixels.shape != shape:
                        given, others = (f"{width}x{height}" for height, width, _ in (pixels.shape, shape))
                        raise InputError(
                            f"{file.path}: {given} pixels, but others have {others}: give a size to cut to"
                        )
                    batch.append(pixels)
                if batch:
                    yield np.stack(batch)

    def _pixels(self, file: FoundImage) -> np.ndarray | ImageError:
        try:
            pixels = decode(file.path).pixels
        except ImageError as error:
            return error
        return pixels if self.size is None else center_crop(pixels, self.size)


@dataclass
class NpzImages:
    """`arr_0` of an `.npz` file, streamed; see `Images`."""

    path: Path
    size: int | None
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        with zipfile.ZipFile(self.path) as archive, archive.open("arr_0.npy") as file:
            self.shape, dtype = _header(file, self.path)
        if dtype != np.uint8 or len(self.shape) != 4 or self.shape[3] != 3 or not self.shape[0]:
            raise InputError(f"{self.path}: arr_0 is {self.shape} {dtype}; (N, H, W, 3) uint8 is needed")

    def __len__(self) -> int:
        return self.shape[0]

    def batches(self, batch_size: int) -> Iterator[np.ndarray]:
        num_bytes = int(np.prod(self.shape[1:]))
        with zipfile.ZipFile(self.path) as archive, archive.open("arr_0.npy") as file:
            _header(file, self.path)
            for first in range(0, len(self), batch_size):
                n = min(batch_size, len(self) - first)
                content = _read(file, n * num_bytes, self.path)
                pixels = np.frombuffer(content, np.uint8).reshape(n, *self.shape[1:])
                yield pixels if self.size is None else np.stack([center_crop(image, self.size) for image in pixels])


def _open_npz(path: Path, size: int | None) -> ImageSet:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            names = set(archive.files)
            pooled = _moments(archive, "mu", "sigma", path)
            spatial = _moments(archive, "mu_s", "sigma_s", path)
        images = NpzImages(path, size) if "arr_0" in names else None
    except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not an .npz of images or statistics, or a damaged one ({error})") from None
    if images is None and pooled is None:
        held = ", ".join(sorted(names)) or "nothing"
        raise InputError(f"{path}: holds {held}; images (arr_0) or statistics (mu and sigma) are needed")
    digest = hashlib.sha256(f"size={size}\n{sha256_of(path)}".encode()).hexdigest()
    return ImageSet(path=str(path), digest=digest, images=images, pooled=pooled, spatial=spatial)


def _moments(archive: Any, mean: str, covariance: str, path: Path) -> Moments | None:
    if mean not in archive.files or covariance not in archive.files:
        return None
    mu, sigma = archive[mean], archive[covariance]
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)):
        raise InputError(f"{path}: {mean} is {mu.shape} and {covariance} {sigma.shape}; (D,) and (D, D) are needed")
    return Moments(mean=torch.from_numpy(mu).double(), covariance=torch.from_numpy(sigma).double())


def _header(file: IO[bytes], path: Path) -> tuple[tuple[int, ...], np.dtype]:
    """Read what comes before the numbers of an array, whose shape and type it tells."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = read(file)
    if is_fortran:
        raise InputError(f"{path}: arr_0 is stored column by column; numpy.ascontiguousarray turns it round")
    return shape, dtype


def _read(file: IO[bytes], num_bytes: int, path: Path) -> bytes:
    try:
        content = file.read(num_bytes)
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    if len(content) < num_bytes:
        raise InputError(f"{path}: arr_0 ends early; copy or download the file again")
    return content
