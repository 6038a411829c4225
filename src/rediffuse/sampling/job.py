"""Make images batch by batch, and write them to a folder in a thread."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from rediffuse.diffusion.guidance import Guidance
from rediffuse.diffusion.samplers import Step
from rediffuse.errors import ConfigError
from rediffuse.images.even import even_batch_size
from rediffuse.images.tensors import to_tensor, to_uint8
from rediffuse.models.config import BatchSize, Precision, PrecisionChoice
from rediffuse.sampling.config import Progressive, Request, SamplingSettings
from rediffuse.sampling.folder import ImageFolder, stored_precision
from rediffuse.sampling.sample import check, check_range, denoise, select_steps
from rediffuse.sampling.small import SmallImage
from rediffuse.threads import in_threads
from rediffuse.zoo.batch_size import choose_batch_size
from rediffuse.zoo.labels import class_labels
from rediffuse.zoo.model import DiffusionModel
from rediffuse.zoo.parts import Parts
from rediffuse.zoo.precision import choose_precision

T = TypeVar("T")

NUM_SHOWN: dict[Progressive, int] = {"strip": 10, "gif": 40}
"""Largest number of intermediate steps in a picture."""
IMAGES_BEHIND = 4
"""Images that may wait to be written while the next batch is computed."""


def sampling_precision(given: PrecisionChoice, model: DiffusionModel, folder: Path) -> Precision:
    """The precision of a job that fills `folder`; `auto` is that of its images, or else the fastest of the device."""
    stored = stored_precision(folder) if given == "auto" else None
    return stored or choose_precision(given, model.device)


def sampling_batch_size(
    given: BatchSize, model: DiffusionModel, settings: SamplingSettings, *, num_images: int, folder: Path
) -> int:
    """The exact batch size of a job that fills `folder` with this number of images.

    Args:
        given: see `zoo.batch_size.choose_batch_size`, also for the errors.
        model: see `sample.sample`.
        settings: see `sample.sample`.
        num_images: images of the whole job.
        folder: records the size.
    """
    size = choose_batch_size(
        given,
        model,
        settings,
        settings.precision,
        num_images=num_images,
        num_calls=settings.steps,
        folder=folder,
    )
    return even_batch_size(size, num_images)


def fill_with_samples(
    model: DiffusionModel,
    todo: Sequence[Request],
    settings: SamplingSettings,
    *,
    folder: ImageFolder,
    guidance: Guidance | None = None,
    batch_size: int = 16,
) -> Iterator[str]:
    """Make the requested samples and write them to a folder.

    Args:
        model: see `sample.sample`.
        settings: see `sample.sample`.
        guidance: see `sample.sample`.
        batch_size: images per call of the network, exactly: a short batch is padded (see `images.even`).
        todo: the samples to make.
        folder: a folder with the `SampleRecord` of this model and these settings.

    Yields:
        The name of each image after it was written.

    Raises:
        ConfigError: see `sample.sample`; or the model's images are not RGB.
        StorageError: an image could not be written.
    """
    _check_rgb(model)
    if not todo:
        return
    in_parts, padded = Parts(batch_size, model.device), _padded(todo, batch_size)
    check(model, settings, "unet", num_samples=len(padded))
    labels = class_labels(model, _labels(padded), len(padded), guided=guidance is not None)
    num_shown = NUM_SHOWN[folder.progressive] if folder.progressive else 1
    network = model.denoiser(settings, settings.precision)

    def steps_of(part: slice) -> list[Step]:
        of_part = None if labels is None else labels[part]
        seeds = [request.seed for request in padded[part]]
        steps = denoise(model, network, seeds, settings, labels=of_part, guidance=guidance)
        return select_steps(model, steps, settings, num_shown)

    def made() -> Iterator[tuple[str, np.ndarray, np.ndarray | None]]:
        for part, kept in in_parts(steps_of, len(padded)):
            x_0 = kept[-1].x
            check_range(x_0, [f"seed {request.seed}" for request in padded[part]])
            shown = _intermediate(kept) if folder.progressive else [None] * len(x_0)
            names = [request.name for request in todo[part]]
            yield from zip(names, to_uint8(x_0), shown, strict=False)

    def write(image: tuple[str, np.ndarray, np.ndarray | None]) -> str:
        name, pixels, intermediate = image
        folder.write(name, pixels, intermediate=intermediate)
        return name

    yield from in_threads(write, made(), 1, IMAGES_BEHIND)


def fill_with_enlarged(
    model: DiffusionModel,
    todo: Sequence[SmallImage],
    settings: SamplingSettings,
    *,
    folder: ImageFolder,
    seed: int = 0,
    batch_size: int = 16,
) -> Iterator[str]:
    """Enlarge images and write the results; see `fill_with_samples`, and `SmallImage.seed` for the seeds."""
    _check_rgb(model)
    if not todo:
        return
    in_parts, padded = Parts(batch_size, model.device), _padded(todo, batch_size)
    check(model, settings, "superres", num_samples=len(padded))
    labels = class_labels(model, _labels(padded), len(padded))
    network = model.denoiser(settings, settings.precision)

    def last_of(part: slice) -> Step:
        low_res = to_tensor(np.stack([small.pixels for small in padded[part]]))
        seeds = [small.seed(seed) for small in padded[part]]
        of_part = None if labels is None else labels[part]
        steps = denoise(model, network, seeds, settings, labels=of_part, low_res=low_res)
        [last] = select_steps(model, steps, settings, 1)
        return last

    def made() -> Iterator[tuple[SmallImage, np.ndarray]]:
        for part, last in in_parts(last_of, len(padded)):
            check_range(last.x, [small.name for small in padded[part]])
            yield from zip(todo[part], to_uint8(last.x), strict=False)

    def write(image: tuple[SmallImage, np.ndarray]) -> str:
        small, pixels = image
        folder.write(small.name, pixels, small=small.pixels)
        return small.name

    yield from in_threads(write, made(), 1, IMAGES_BEHIND)


def _padded(items: Sequence[T], size: int) -> list[T]:
    """The items, and the first one again where others are missing in the last batch (see `images.even`)."""
    return [*items, *[items[0]] * (-len(items) % size)]


def _labels(batch: Sequence[Request] | Sequence[SmallImage]) -> list[int] | None:
    labels = [one.label for one in batch if one.label is not None]
    assert len(labels) in (0, len(batch))
    return labels or None


def _intermediate(steps: Sequence[Step]) -> np.ndarray:
    """Pictures (N, F, 2S, S, 3): for every step x_t above, and the predicted x_0 below."""
    pixels = [to_uint8(torch.cat([step.x, step.x_0], dim=2)) for step in steps]
    return np.stack(pixels, axis=1)


def _check_rgb(model: DiffusionModel) -> None:
    channels, dims = model.image_channels, model.network.config.dims
    if channels != 3 or dims != 2:
        raise ConfigError(
            f"{model.provenance.source}: makes {channels} channels in {dims} dimensions; "
            "only 3 channels in 2 dimensions can be written as images"
        )
