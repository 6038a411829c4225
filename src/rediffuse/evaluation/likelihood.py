"""Bits per dimension of images under a model, with the terms of the bound, as in guided-diffusion's `image_nll.py`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rediffuse.diffusion.likelihood import BitsPerDimension, bits_per_dimension
from rediffuse.diffusion.noise import PerSampleNoise
from rediffuse.errors import ConfigError, ImageError, InputError
from rediffuse.files import atomic_write
from rediffuse.images.decode import decode
from rediffuse.images.find import FoundImage
from rediffuse.images.tensors import to_tensor
from rediffuse.images.windows import network_inputs
from rediffuse.threads import thread_pool
from rediffuse.zoo.labels import class_labels
from rediffuse.zoo.model import DiffusionModel

Progress = Callable[[int], object]
"""Called after each batch with its number of files."""

_THREADS = 4


@dataclass(frozen=True, kw_only=True)
class Likelihoods:
    """The variational bounds of the images that could be read, in the order of the files."""

    names: tuple[str, ...]
    bits: BitsPerDimension
    """The terms of the bounds, on the CPU; columns from the noisiest timestep to the first."""
    failures: tuple[str, ...]
    """The errors of the other files, one line each."""

    def save(self, path: Path) -> None:
        """Write an `.npz`: means over the images per timestep, as `image_nll.py` does, and the totals of each image.

        `vb_terms`, `xstart_mse`, `mse` are (T,), from the noisiest timestep to the first; `total_bpd` and `prior_bpd`
        are (N,), in the order of `names`.

        Raises:
            StorageError: the file cannot be written.
        """
        bits = self.bits
        arrays: dict[str, Any] = {
            "names": self.names,
            "vb_terms": bits.vb.mean(dim=0),
            "xstart_mse": bits.x_0_mse.mean(dim=0),
            "mse": bits.eps_mse.mean(dim=0),
            "total_bpd": bits.total,
            "prior_bpd": bits.prior,
        }
        with atomic_write(path) as partial, partial.open("wb") as file:
            np.savez(file, **arrays)


def likelihoods(
    model: DiffusionModel,
    files: Sequence[FoundImage],
    *,
    steps: int | None = None,
    seed: int = 0,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> Likelihoods:
    """Estimate the variational bound for every file, scaled and cropped to the model's input size as in training.

    Args:
        model: a U-Net of RGB images.
        files: from `images.find.find_images`; for a class-conditional model with their classes.
        steps: number of timesteps to use, evenly spread over the chain; None uses all of them.
        seed: the noise of file i has the seed `seed + i`, so it does not depend on the batch.
        batch_size: images per call of the network, at least 1.
        progress: called after each batch with its number of files.

    Raises:
        ConfigError: the model is not a U-Net of RGB images, or a number is not allowed.
        InputError: no file could be read.
    """
    model.require_rgb_unet("give a likelihood of images")
    if model.autoencoder is not None:
        raise ConfigError(f"{model.provenance.source}: a latent model has no likelihood of images")
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size}: at least 1 is needed")
    process = model.process("" if steps is None else str(steps))
    names: list[str] = []
    failures: list[str] = []
    parts: list[BitsPerDimension] = []
    for indices, images, reasons in _batches(files, model.image_size, batch_size):
        failures += reasons
        if indices:
            read = [files[index].name for index in indices]
            labels = [label for index in indices if (label := files[index].label) is not None]
            y = class_labels(model, labels or None, len(read))
            conditioning = {} if y is None else {"y": y}
            noise = PerSampleNoise([seed + index for index in indices])
            x_0 = torch.stack(images).to(model.device)
            bits = bits_per_dimension(process, model.network, x_0, noise, conditioning=conditioning)
            parts.append(BitsPerDimension(*(values.cpu() for values in bits)))
            names += read
        if progress:
            progress(len(indices) + len(reasons))
    if not parts:
        raise InputError(f"none of the {len(files)} files could be read; the first: {failures[0]}")
    bits = BitsPerDimension(*(torch.cat(values) for values in zip(*parts, strict=True)))
    return Likelihoods(names=tuple(names), bits=bits, failures=tuple(failures))


def _batches(
    files: Sequence[FoundImage], size: int, batch_size: int
) -> Iterator[tuple[list[int], list[Tensor], list[str]]]:
    """For every `batch_size` files: indices and images (3, size, size) of the readable ones, errors of the others."""
    with thread_pool(_THREADS) as pool:
        for first in range(0, len(files), batch_size):
            batch = files[first : first + batch_size]
            results = list(pool.map(lambda file: _x_0(file, size), batch))
            images = {first + i: image for i, image in enumerate(results) if isinstance(image, Tensor)}
            yield (
                list(images),
                list(images.values()),
                [str(error) for error in results if isinstance(error, ImageError)],
            )


def _x_0(file: FoundImage, size: int) -> Tensor | ImageError:
    try:
        return to_tensor(network_inputs(decode(file.path, file.limits).pixels, size, "center", file.source)[0])[0]
    except ImageError as error:
        return error
