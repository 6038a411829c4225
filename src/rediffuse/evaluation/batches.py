"""Sets of images to compare: guided-diffusion's `.npz` batches, which may include statistics, and image folders."""

import hashlib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from rediffuse.errors import ConfigError, ImageError, InputError
from rediffuse.evaluation.statistics import Moments
from rediffuse.files import sha256_of
from rediffuse.images.crop import center_crop
from rediffuse.images.decode import decode
from rediffuse.images.find import FoundImage, find_images
from rediffuse.images.limits import Limits
from rediffuse.images.npz import NpzBatch, open_npz, read_array
from rediffuse.threads import thread_pool

_THREADS = 4


class Images(Protocol):
    """Images that are read when needed, because 50,000 images do not fit into memory."""

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
    """Images, statistics of images, or both, as in guided-diffusion's reference batches."""

    path: str
    digest: str
    """Hash of the files' content and of how it is processed; it does not depend on the folder."""
    images: Images | None
    pooled: Moments | None = None
    """Statistics that the file includes (`mu` and `sigma`), perhaps of more images than it holds."""
    spatial: Moments | None = None
    """Spatial statistics that the file includes (`mu_s` and `sigma_s`)."""


def open_set(path: str, size: int | None = None, limits: Limits = Limits()) -> ImageSet:
    """Open an `.npz` file, or find the images of a folder.

    Args:
        path: a file that ends in `.npz` (`arr_0`: uint8 (N, H, W, 3); or `mu`, `sigma` and perhaps `mu_s`, `sigma_s`;
            or all of them), or a path that `images.find.find_images` takes.
        size: scale and crop the images to squares of this side; None does not change them, and they must have one size.
            Statistics that an `.npz` includes do not change.
        limits: those of the image files.

    Raises:
        InputError: there are no images or statistics; names what the file holds.
        ConfigError: `size` is below 1.
    """
    if size is not None and size < 1:
        raise ConfigError(f"size={size}: at least 1 is needed")
    if not path.lower().endswith(".npz"):
        files = ImageFiles(find_images([path], limits), size)
        return ImageSet(path=path, digest=files.digest(), images=files)
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
        """Hash of the files' names and bytes, and of the crop."""
        sha256 = hashlib.sha256(f"size={self.size}\n".encode())
        for file in self.files:
            sha256.update(f"{file.name}\t{file.sha256() or 'unreadable'}\n".encode())
        return sha256.hexdigest()

    def batches(self, batch_size: int) -> Iterator[np.ndarray]:
        shape: tuple[int, ...] | None = None
        with thread_pool(_THREADS) as pool:
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
                            f"{file.path}: {given} pixels, but others have {others}: give a size to crop to"
                        )
                    batch.append(pixels)
                if batch:
                    yield np.stack(batch)

    def _pixels(self, file: FoundImage) -> np.ndarray | ImageError:
        try:
            pixels = decode(file.path, file.limits).pixels
        except ImageError as error:
            return error
        return pixels if self.size is None else center_crop(pixels, self.size)


@dataclass
class NpzImages:
    """The images of an `.npz` file; see `Images`."""

    batch: NpzBatch
    size: int | None
    failures: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.batch)

    def batches(self, batch_size: int) -> Iterator[np.ndarray]:
        for pixels in self.batch.batches(batch_size):
            yield pixels if self.size is None else np.stack([center_crop(image, self.size) for image in pixels])


def _open_npz(path: Path, size: int | None) -> ImageSet:
    with open_npz(path, "images or statistics") as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        pooled = _moments(archive, "mu", "sigma", path)
        spatial = _moments(archive, "mu_s", "sigma_s", path)
    images = NpzImages(NpzBatch(path), size) if "arr_0" in names else None
    if images is None and pooled is None:
        held = ", ".join(sorted(names)) or "nothing"
        raise InputError(f"{path}: holds {held}; images (arr_0) or statistics (mu and sigma) are needed")
    digest = hashlib.sha256(f"size={size}\n{sha256_of(path)}".encode()).hexdigest()
    return ImageSet(path=str(path), digest=digest, images=images, pooled=pooled, spatial=spatial)


def _moments(archive: zipfile.ZipFile, mean: str, covariance: str, path: Path) -> Moments | None:
    mu, sigma = read_array(archive, mean), read_array(archive, covariance)
    if mu is None or sigma is None:
        return None
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)):
        raise InputError(f"{path}: {mean} is {mu.shape} and {covariance} {sigma.shape}; (D,) and (D, D) are needed")
    mu, sigma = (torch.from_numpy(np.asarray(values, np.float64)) for values in (mu, sigma))
    return Moments(mean=mu, covariance=sigma)
