"""Folders of labelled images, as batches that are a function of the seed and of the position in the training."""

import logging
import os
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from rediffuse.errors import ImageError, InputError
from rediffuse.images.crop import center_crop, random_crop
from rediffuse.images.decode import decode
from rediffuse.images.tensors import to_tensor
from rediffuse.progress import Progress, counted, unobserved
from rediffuse.threads import thread_pool
from rediffuse.training.config import ImageConfig
from rediffuse.training.listing import Listing
from rediffuse.training.randomness import CROP, ORDER, derive
from rediffuse.training.task import Batch

LOGGER = logging.getLogger(__name__)


class ImageData:
    """Square images by position in the training; see `task.Data`.

    Cropped images are read by the constructor and kept in memory, if all of them fit the limit of the config, and there
    are no random crops, which differ each time. Otherwise a file is read when it is needed. The next file takes the
    place of one that cannot be decoded.

    Args:
        listing: the files (see `listing.list_images`).
        config: how they are cropped.
        image_size: side in pixels.
        seed: random seed of order, crops and flips.
        progress: called with the number of files that are read.

    Raises:
        InputError: none of the files can be read.
    """

    def __init__(
        self,
        listing: Listing,
        config: ImageConfig,
        image_size: int,
        seed: int,
        *,
        progress: Progress = unobserved,
    ) -> None:
        self.listing, self.config, self.image_size, self.seed = listing, config, image_size, seed
        self.fingerprint = listing.fingerprint
        self._unreadable: dict[int, str] = {}
        self._cache: np.ndarray | None = None  # (n, S, S, 3) uint8
        num_bytes = len(listing) * image_size**2 * 3
        if not config.random_crop and num_bytes <= config.cache_limit_mb * 2**20:
            self._cache = self._read_all(progress)
        self._pixels(0)  # raises an error if there is no image

    @property
    def classes(self) -> tuple[str, ...]:
        return self.listing.classes

    @property
    def skipped(self) -> list[str]:
        return list(self._unreadable.values())

    def write_index(self, path: Path) -> None:
        self.listing.write(path)

    def __len__(self) -> int:
        return len(self.listing)

    def __getitem__(self, positions: range) -> Batch:
        """x_0 (N, 3, S, S) in [-1, 1] and, if there are classes, y (N,) int64."""
        images, indices = [], []
        for position in positions:
            index, pixels = self._pixels(self.index_at(position))
            indices.append(index)
            images.append(self._augmented(pixels, position))
        batch = {"x_0": to_tensor(np.stack(images))}
        if self.classes:
            batch["y"] = torch.from_numpy(self.listing.labels[indices].astype(np.int64))
        return batch

    def index_at(self, position: int) -> int:
        """The index of the file at this position; every epoch is another permutation of all files."""
        epoch, place = divmod(position, len(self))
        return int(_permutation(self.seed, epoch, len(self))[place])

    def _augmented(self, pixels: np.ndarray, position: int) -> np.ndarray:
        rng = np.random.default_rng(derive(self.seed, CROP, position))
        if self._cache is None:
            size = self.image_size
            pixels = random_crop(pixels, size, rng) if self.config.random_crop else center_crop(pixels, size)
        is_mirrored = self.config.random_flip and rng.random() < 0.5
        return pixels[:, ::-1] if is_mirrored else pixels

    def _pixels(self, first: int) -> tuple[int, np.ndarray]:
        """The first file from this index on that can be decoded: its index, and its pixels, cropped if in memory."""
        for index in (place % len(self) for place in range(first, first + len(self))):
            if index in self._unreadable:
                continue
            if self._cache is not None:
                return index, self._cache[index]
            path = self.listing.path(index)
            try:
                return index, decode(path, self.config.decoding).pixels
            except ImageError as error:
                if not os.path.lexists(path):  # perhaps all of them are gone
                    raise
                LOGGER.warning("skipped: %s", error)
                self._unreadable[index] = str(error)
        raise InputError(f"none of the {len(self)} images can be read; the first: {self._unreadable[0]}")

    def _read_all(self, progress: Progress) -> np.ndarray:
        """The centre crop of every image; zeros for those that cannot be decoded."""
        crops = np.zeros((len(self), self.image_size, self.image_size, 3), np.uint8)

        def read(index: int) -> None:
            try:
                crops[index] = center_crop(
                    decode(self.listing.path(index), self.config.decoding).pixels, self.image_size
                )
            except ImageError as error:
                self._unreadable[index] = str(error)

        with thread_pool() as pool:
            for _ in counted(pool.map(read, range(len(self))), "reading images", len(self), progress):
                pass
        self._unreadable = dict(sorted(self._unreadable.items()))
        return crops


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    return np.random.default_rng(derive(seed, ORDER, epoch)).permutation(n)
