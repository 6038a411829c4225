"""guided-diffusion's image folders (and DIRE's) with their old names; `rediffuse.images` reads and crops.

Files are found and read as by the original: `.jpg`, `.jpeg`, `.png` and `.gif` files, also hidden ones, also through
links, and several times where several links lead to one file; the first frame, without its EXIF orientation. What
differs, and why:

- A file that cannot be read is named on stderr and replaced by the next one that can, so that batches keep their size,
  with which programs draw labels; the original ends.
- 16-bit gray is scaled to 8 bits; the original makes everything above 255 white.
- Formats and sizes that `rediffuse.images.decode` refuses count as files that cannot be read: they can fill the memory.
- A link to a folder that contains it is not followed, so that the list of files ends.
- If no batch can be filled, or file names contain no class, there is an error; the original waits for ever, or takes
  every name as a class.
- Random crops and flips draw from torch's generator, which programs seed.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler, default_collate

from rediffuse.compat.guided_diffusion import logger
from rediffuse.compat.processes import WORLD
from rediffuse.errors import ConfigError, ImageError, InputError
from rediffuse.images import crop
from rediffuse.images.decode import first_frame
from rediffuse.images.tensors import to_tensor
from rediffuse.training.interrupt import ignore_stop_signals

SUFFIXES = (".jpg", ".jpeg", ".png", ".gif")
"""Suffixes of the files that are taken from folders, in lower or upper case."""

Conditioning = dict[str, Tensor]


def load_data(
    *,
    data_dir: str,
    batch_size: int,
    image_size: int,
    class_cond: bool = False,
    deterministic: bool = False,
    random_crop: bool = False,
    random_flip: bool = True,
) -> Iterator[tuple[Tensor, Conditioning]]:
    """Endless batches of this process's share of the images below a folder; incomplete batches are left out.

    Args:
        data_dir: the folder, searched recursively.
        batch_size: images per batch and process.
        image_size: side in pixels.
        class_cond: also give `y`. The class is the part of a file's name before the first underscore; classes are
            numbered in the order of their names.
        deterministic: in the order of the files instead of a new random order in every epoch.
        random_crop: cut out a random square instead of the middle one.
        random_flip: mirror images at random, half of them.

    Yields:
        (N, 3, S, S) float32 in [-1, 1], and `{"y": (N,) int64}` or an empty dict.

    Raises:
        InputError: there are no images, none can be read, or a file name contains no class.
        ConfigError: there are fewer images than one batch needs.
    """
    dataset = ImageDataset(image_size, *_list(data_dir, class_cond), WORLD.rank, WORLD.size, random_crop, random_flip)
    return _batches(dataset, data_dir, batch_size, deterministic, drop_last=True)


def load_data_for_reverse(
    *,
    data_dir: str,
    batch_size: int,
    image_size: int,
    class_cond: bool = False,
    deterministic: bool = True,
    random_crop: bool = False,
    random_flip: bool = False,
) -> Iterator[tuple[Tensor, Conditioning, list[str]]]:
    """DIRE's version of `load_data`, which also gives paths; in deterministic order also an incomplete last batch.

    Yields:
        (N, 3, S, S) float32 in [-1, 1], `{"y": (N,) int64}` or an empty dict, and N paths.

    Raises:
        InputError, ConfigError: see `load_data`; in deterministic order one image per process is enough.
    """
    dataset = ImageDataset_for_reverse(
        image_size, *_list(data_dir, class_cond), WORLD.rank, WORLD.size, random_crop, random_flip
    )
    logger.log(f"dataset length: {len(dataset) * WORLD.size}")
    return _batches(dataset, data_dir, batch_size, deterministic, drop_last=not deterministic)


class ImageDataset(Dataset[Any]):
    """The images `shard`, `shard + num_shards`, ..., as (array (3, S, S) float32 in [-1, 1], {"y": int64} or {})."""

    def __init__(
        self,
        resolution: int,
        image_paths: Sequence[str],
        classes: Sequence[int] | None = None,
        shard: int = 0,
        num_shards: int = 1,
        random_crop: bool = False,
        random_flip: bool = True,
    ) -> None:
        self.resolution = resolution
        self.local_images = image_paths[shard::num_shards]
        self.local_classes = None if classes is None else classes[shard::num_shards]
        self.random_crop = random_crop
        self.random_flip = random_flip

    def __len__(self) -> int:
        return len(self.local_images)

    def __getitem__(self, idx: int) -> tuple[Any, ...]:
        """One image. Raises ImageError if the file cannot be read."""
        pixels = first_frame(Path(self.local_images[idx]))
        size = self.resolution
        pixels = crop.random_crop(pixels, size, _rng()) if self.random_crop else crop.center_crop(pixels, size)
        if self.random_flip and _rng().random() < 0.5:
            pixels = np.ascontiguousarray(pixels[:, ::-1])
        classes = {} if self.local_classes is None else {"y": np.array(self.local_classes[idx], dtype=np.int64)}
        return to_tensor(pixels).numpy(), classes


class ImageDataset_for_reverse(ImageDataset):
    """DIRE's dataset: a tensor instead of an array, and the path of the file."""

    def __getitem__(self, idx: int) -> tuple[Any, ...]:
        array, classes = super().__getitem__(idx)
        return torch.from_numpy(array), classes, self.local_images[idx]


def center_crop_arr(pil_image: Image.Image, image_size: int) -> np.ndarray:
    """(S, S, 3) uint8: the shorter side scaled to `image_size`, the middle square cut out."""
    return crop.center_crop(np.asarray(pil_image.convert("RGB")), image_size)


def random_crop_arr(
    pil_image: Image.Image, image_size: int, min_crop_frac: float = 0.8, max_crop_frac: float = 1.0
) -> np.ndarray:
    """(S, S, 3) uint8: a random square whose side is between the two fractions of the shorter side."""
    pixels = np.asarray(pil_image.convert("RGB"))
    return crop.random_crop(pixels, image_size, _rng(), min_fraction=min_crop_frac, max_fraction=max_crop_frac)


class _Batches(Dataset[Any]):
    """Batches of a dataset by the indices of their images; None if no image of the dataset can be read."""

    def __init__(self, dataset: ImageDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, indices: Sequence[int]) -> Any:
        samples = []
        for index in indices:
            sample = self._first_readable(index)
            if sample is None:
                return None
            samples.append(sample)
        return default_collate(samples)

    def _first_readable(self, index: int) -> tuple[Any, ...] | None:
        """The image at this index, or else at the next one that can be read; after the last comes the first."""
        for place in (*range(index, len(self.dataset)), *range(index)):
            try:
                return self.dataset[place]
            except ImageError as error:
                print(f"skipped: {error}", file=sys.stderr)
        return None


def _batches(
    dataset: ImageDataset, data_dir: str, batch_size: int, deterministic: bool, drop_last: bool
) -> Iterator[Any]:
    if len(dataset) < (batch_size if drop_last else 1):
        raise ConfigError(f"batch_size={batch_size}: {data_dir} has {len(dataset)} images for this process")
    return _endless(dataset, batch_size, deterministic, drop_last)


def _endless(dataset: ImageDataset, batch_size: int, deterministic: bool, drop_last: bool) -> Iterator[Any]:
    order = SequentialSampler(dataset) if deterministic else RandomSampler(dataset)
    batches = BatchSampler(order, batch_size, drop_last)
    loader = DataLoader(
        _Batches(dataset), batch_size=None, sampler=batches, num_workers=1, worker_init_fn=ignore_stop_signals
    )
    while True:
        for batch in loader:
            if batch is None:
                raise InputError(f"none of the {len(dataset)} images can be read; the first: {dataset.local_images[0]}")
            yield batch


def _list(data_dir: str, class_cond: bool) -> tuple[list[str], list[int] | None]:
    """The files below a folder and their classes."""
    if not data_dir:
        raise InputError("data_dir: a folder of images is needed")
    paths = list(_image_files(data_dir))
    if not paths:
        raise InputError(f"{data_dir}: holds no images ({', '.join(SUFFIXES)})")
    if not class_cond:
        return paths, None
    nameless = [path for path in paths if "_" not in Path(path).name]
    if nameless:
        raise InputError(
            f"{nameless[0]}: contains no class; class_cond needs one before an underscore, as in cat_1.png"
        )
    names = [Path(path).name.split("_")[0] for path in paths]
    numbers = {name: number for number, name in enumerate(sorted(set(names)))}
    return paths, [numbers[name] for name in names]


def _image_files(folder: str, inside: tuple[str, ...] = ()) -> Iterator[str]:
    """The images below a folder, in the order of their names; `inside` are the real paths of the folders around it."""
    inside = (*inside, os.path.realpath(folder))
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 (names are needed)
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed: {error.strerror or error}") from error
    for path in (os.path.join(folder, name) for name in names):  # noqa: PTH118 (a program sees the paths)
        if path.lower().endswith(SUFFIXES):
            yield path
        elif Path(path).is_dir() and os.path.realpath(path) not in inside:
            yield from _image_files(path, inside)


def _rng() -> np.random.Generator:
    return np.random.default_rng(int(torch.randint(2**63 - 1, ())))
