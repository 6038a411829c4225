"""Small labelled data sets: both classes show the same kind of picture, and are saved as the caller says."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

Save = Callable[[Image.Image, Path], None]


def picture(seed: int, width: int = 40, height: int = 32) -> Image.Image:
    """A soft blob of colours with some grain, another one for every seed."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    return Image.fromarray((np.asarray(coarse) + rng.normal(0, 3, (height, width, 3))).clip(0, 255).astype(np.uint8))


def as_png(image: Image.Image, path: Path) -> None:
    image.save(path.with_suffix(".png"))


def as_jpeg(image: Image.Image, path: Path) -> None:
    image.save(path.with_suffix(".jpg"), quality=70)


def write_class(folder: Path, first_seed: int, number: int, save: Save = as_png, **size: int) -> Path:
    """`number` pictures, those of the seeds from `first_seed` on."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(first_seed, first_seed + number):
        save(picture(seed, **size), folder / f"{seed}")
    return folder


def write_data(folder: Path, number: int = 40, real: Save = as_png, generated: Save = as_png) -> Path:
    """`real/` and `generated/` with `number` pictures each, none of them alike."""
    write_class(folder / "real", 0, number, real)
    write_class(folder / "generated", 1000, number, generated)
    return folder
