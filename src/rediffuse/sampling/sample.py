"""Seeds to images: every sample is made of its own seed, whatever the batch it is in."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from rediffuse.diffusion import walk
from rediffuse.diffusion.guidance import Guidance
from rediffuse.diffusion.noise import Noise, PerSampleNoise
from rediffuse.diffusion.process import SamplerOptions
from rediffuse.diffusion.samplers import Step
from rediffuse.errors import ConfigError
from rediffuse.models.config import Kind
from rediffuse.sampling.config import SamplingSettings
from rediffuse.zoo.labels import Labels, class_labels
from rediffuse.zoo.model import DiffusionModel

MAX_RMS = 2.0
"""Largest root mean square of a sample. Without clipping, and under guidance, images may leave [-1, 1] a little."""


def sample(
    model: DiffusionModel,
    seeds: Sequence[int],
    settings: SamplingSettings | None = None,
    *,
    labels: Labels | None = None,
    guidance: Guidance | None = None,
    batch_size: int = 16,
) -> Iterator[Tensor]:
    """Sample images, one per seed and in their order.

    An image depends on its seed, its label and the settings. The batch it is in shows only in how convolutions round
    (about 1e-6).

    Args:
        model: a U-Net.
        seeds: from 0 to 2^32 - 1.
        settings: sampler, steps, eta, clipping; None is `SamplingSettings()`.
        labels: the class of each sample: needed where the model is class-conditional or `guidance` is given, refused
            elsewhere.
        guidance: from `guide.guide`, or any other `diffusion.guidance.Guidance`.
        batch_size: images per call of the network, at least 1.

    Yields:
        x_0 (C, S, S) float32 on the CPU; in [-1, 1] where the settings clip, but for what guidance adds.

    Raises:
        ConfigError: the model is no U-Net, the labels do not fit, or no integer stride gives `settings.steps`: at once.
            A sample is not finite, or a batch does not fit into the GPU's memory: at its turn.
    """
    settings = settings or SamplingSettings()
    check(model, settings, "unet", num_samples=len(seeds))
    y = class_labels(model, labels, len(seeds), guided=guidance is not None)

    def steps_of(batch: slice) -> Iterator[Step]:
        return denoise(model, seeds[batch], settings, labels=None if y is None else y[batch], guidance=guidance)

    return _images(steps_of, settings, seeds, batch_size)


def upscale(
    model: DiffusionModel,
    low_res: Tensor,
    settings: SamplingSettings | None = None,
    *,
    seeds: Sequence[int],
    labels: Labels | None = None,
    batch_size: int = 16,
) -> Iterator[Tensor]:
    """Enlarge images with a super-resolution model (ADM, arXiv:2105.05233), one per seed and in their order.

    Args:
        model: a super-resolution U-Net.
        low_res: (N, C, s, s) float32 in [-1, 1], of the size that the model was trained to enlarge.
        seeds: one per image.
        settings: see `sample`.
        labels: see `sample`.
        batch_size: see `sample`.

    Yields:
        x_0 (C, S, S) as `sample` does.

    Raises:
        ConfigError: as `sample`, or the number of seeds or channels does not fit `low_res`.
    """
    settings = settings or SamplingSettings()
    check(model, settings, "superres", num_samples=len(seeds))
    y = class_labels(model, labels, len(seeds))
    channels = model.network.config.in_channels
    if low_res.ndim != 4 or low_res.shape[:2] != (len(seeds), channels):
        raise ConfigError(f"low_res: given {tuple(low_res.shape)}; ({len(seeds)}, {channels}, s, s) is needed")

    def steps_of(batch: slice) -> Iterator[Step]:
        part = None if y is None else y[batch]
        return denoise(model, seeds[batch], settings, labels=part, low_res=low_res[batch])

    return _images(steps_of, settings, seeds, batch_size)


def denoise(
    model: DiffusionModel,
    seeds: Sequence[int],
    settings: SamplingSettings,
    *,
    labels: Tensor | None = None,
    guidance: Guidance | None = None,
    low_res: Tensor | None = None,
) -> Iterator[Step]:
    """Walk one batch from noise to images: `settings.steps` steps, the last of which holds the samples.

    For the arguments see `sample` and `upscale`, which check them; `labels` are from `class_labels`.
    """
    config = model.network.config
    noise = PerSampleNoise(seeds)
    x_T = noise.normal((config.in_channels, *[config.image_size] * config.dims)).to(model.device)
    return denoise_from(model, x_T, settings, noise=noise, labels=labels, guidance=guidance, low_res=low_res)


def denoise_from(
    model: DiffusionModel,
    x_T: Tensor,
    settings: SamplingSettings,
    *,
    noise: Noise,
    labels: Tensor | None = None,
    guidance: Guidance | None = None,
    low_res: Tensor | None = None,
) -> Iterator[Step]:
    """`denoise` from a given x_T (N, C, S, S) on the model's device."""
    conditioning = {}
    if labels is not None:
        conditioning["y"] = labels
    if low_res is not None:
        conditioning["low_res"] = low_res.to(model.device)
    network = model.denoiser(settings.frequency)
    if model.num_classes is None:
        network = _without_labels(network)  # they are the guidance's alone
    options = SamplerOptions(
        clip_denoised=settings.clip, guidance=guidance, conditioning=conditioning, eta=settings.eta, noise=noise
    )
    return walk.sample(settings.sampler, model.process(settings.respacing), network, x_T, options)


def moments(steps: Iterator[Step], num_steps: int, num_moments: int) -> list[Step]:
    """Up to `num_moments` of a walk's `num_steps` steps, evenly spaced, the last one always among them; on the CPU.

    Raises:
        ConfigError: the batch does not fit into the GPU's memory.
    """
    apart = (num_steps - 1) / max(1, num_moments - 1)
    wanted = {num_steps - 1 - round(apart * place) for place in range(num_moments)}
    try:
        return [Step(step.x.cpu(), step.x_0.cpu()) for index, step in enumerate(steps) if index in wanted]
    except torch.OutOfMemoryError:
        raise ConfigError("batch_size: a batch does not fit into the GPU's memory; choose a smaller one") from None


def check(model: DiffusionModel, settings: SamplingSettings, kind: Kind, *, num_samples: int) -> None:
    """Refuse what `sample` and `upscale` refuse, before any work (see there); `class_labels` refuses labels."""
    if model.kind != kind:
        use = {"unet": "sample takes a unet", "superres": "upscale takes a superres model"}[kind]
        raise ConfigError(f"{model.provenance.source}: is a {model.kind} model; {use}")
    if model.network.training:
        raise ConfigError("model.network is in training mode, where dropout is random: call .eval() first")
    if not num_samples:
        raise ConfigError("seeds: given none; at least 1 is needed")
    model.process(settings.respacing)  # steps that the chain does not have fail here


def check_range(x_0: Tensor, names: Sequence[object]) -> None:
    """Refuse samples x_0 (N, C, ...) that hold NaN or lie far outside [-1, 1]; `names` are what the error calls them.

    Raises:
        ConfigError: names the first one.
    """
    for image, name in zip(x_0, names, strict=True):
        rms = image.square().mean().sqrt().item()
        if not rms <= MAX_RMS:  # NaN too
            raise ConfigError(
                f"{name}: the sample has an RMS of {rms:.3g}, at most {MAX_RMS:g} is allowed (images lie in [-1, 1]): "
                "clip x_0 in every step, guide less, or take more steps"
            )


def _images(
    steps_of: Callable[[slice], Iterator[Step]], settings: SamplingSettings, seeds: Sequence[int], batch_size: int
) -> Iterator[Tensor]:
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size}: at least 1 is needed")

    def images() -> Iterator[Tensor]:
        for first in range(0, len(seeds), batch_size):
            batch = slice(first, first + batch_size)
            [last] = moments(steps_of(batch), settings.steps, 1)
            check_range(last.x, [f"seed {seed}" for seed in seeds[batch]])
            yield from last.x

    return images()


def _without_labels(network: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def unconditional(x_t: Tensor, timesteps: Tensor, *, y: Tensor | None = None, **conditioning: Tensor) -> Tensor:
        return network(x_t, timesteps, **conditioning)

    return unconditional
