"""Sample images from seeds: a sample depends on its own seed, and not on its batch."""

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from rediffuse.diffusion import trajectory
from rediffuse.diffusion.guidance import Guidance
from rediffuse.diffusion.noise import Noise, PerSampleNoise
from rediffuse.diffusion.process import Model, SamplerOptions
from rediffuse.diffusion.samplers import Step
from rediffuse.errors import ConfigError
from rediffuse.models.config import Kind
from rediffuse.sampling.config import SamplingSettings
from rediffuse.transfer import to_device
from rediffuse.zoo.labels import Labels, class_labels
from rediffuse.zoo.model import DiffusionModel
from rediffuse.zoo.parts import Parts

MAX_RMS = 2.0
"""Largest allowed root mean square of a sample. Without clipping or with guidance, values may be outside [-1, 1]."""


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

    An image depends on its seed, its label and the settings. Its batch affects it only by rounding in convolutions
    (about 1e-6).

    Args:
        model: a U-Net.
        seeds: from 0 to 2^32 - 1.
        settings: sampler, steps, eta, clipping; None is `SamplingSettings()`.
        labels: the class of each sample; needed if the model is class-conditional or `guidance` is given, otherwise not
            allowed.
        guidance: from `guide.guide`, or any other `diffusion.guidance.Guidance`.
        batch_size: images per call of the network, at least 1; halved where they do not fit in the device's memory.

    Yields:
        x_0 (C, S, S) float32 on the CPU; in [-1, 1] if the settings clip, except for the effect of guidance.

    Raises:
        ConfigError: immediately if the model is not a U-Net, the labels do not fit, or no integer stride gives
            `settings.steps`; during the iteration if a sample is far outside [-1, 1] or NaN, or a single image does
            not fit in the GPU's memory.
    """
    settings = settings or SamplingSettings()
    check(model, settings, "unet", num_samples=len(seeds))
    y = class_labels(model, labels, len(seeds), guided=guidance is not None)
    network = model.denoiser(settings, settings.precision)

    def steps_of(batch: slice) -> Iterator[Step]:
        of_batch = None if y is None else y[batch]
        return denoise(model, network, seeds[batch], settings, labels=of_batch, guidance=guidance)

    return _images(model, steps_of, settings, seeds, batch_size)


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

    network = model.denoiser(settings, settings.precision)

    def steps_of(batch: slice) -> Iterator[Step]:
        part = None if y is None else y[batch]
        return denoise(model, network, seeds[batch], settings, labels=part, low_res=low_res[batch])

    return _images(model, steps_of, settings, seeds, batch_size)


def denoise(
    model: DiffusionModel,
    network: Model,
    seeds: Sequence[int],
    settings: SamplingSettings,
    *,
    labels: Tensor | None = None,
    guidance: Guidance | None = None,
    low_res: Tensor | None = None,
) -> Iterator[Step]:
    """Sample one batch: yields `settings.steps` steps, the last of which holds the samples.

    The arguments are those of `sample` and `upscale`, which check them; `network` is from `DiffusionModel.denoiser`,
    and `labels` are from `class_labels`.
    """
    noise = PerSampleNoise(seeds)
    x_T = to_device(noise.normal(model.shape), model.device)
    return denoise_from(model, network, x_T, settings, noise=noise, labels=labels, guidance=guidance, low_res=low_res)


def denoise_from(
    model: DiffusionModel,
    network: Model,
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
        conditioning["low_res"] = to_device(low_res, model.device)
    if model.num_classes is None:
        network = _without_labels(network)  # only the guidance needs them
    options = SamplerOptions(
        clip_denoised=settings.clip and model.autoencoder is None,
        guidance=guidance,
        conditioning=conditioning,
        eta=settings.eta,
        noise=noise,
    )
    return trajectory.sample(settings.sampler, model.process(settings.respacing), network, x_T, options)


def select_steps(
    model: DiffusionModel, steps: Iterator[Step], settings: SamplingSettings, num_selected: int
) -> list[Step]:
    """At most `num_selected` of `settings.steps` steps, evenly spaced and including the last one, on the CPU.

    The steps of a latent model are decoded.
    """
    apart = (settings.steps - 1) / max(1, num_selected - 1)
    wanted = {settings.steps - 1 - round(apart * place) for place in range(num_selected)}

    def image(x: Tensor) -> Tensor:
        return model.decode(x, clip=settings.clip).cpu()

    return [Step(image(step.x), image(step.x_0)) for index, step in enumerate(steps) if index in wanted]


def check(model: DiffusionModel, settings: SamplingSettings, kind: Kind, *, num_samples: int) -> None:
    """Raise the errors of `sample` and `upscale` that can be found before sampling, except those of `class_labels`."""
    if model.kind != kind:
        use = {"unet": "sample takes a unet", "superres": "upscale takes a superres model"}[kind]
        raise ConfigError(f"{model.provenance.source}: is a {model.kind} model; {use}")
    if model.network.training:
        raise ConfigError("model.network is in training mode, where dropout is random: call .eval() first")
    if not num_samples:
        raise ConfigError("seeds: given none; at least 1 is needed")
    model.process(settings.respacing)  # checks the number of steps
    model.check_settings(settings)


def check_range(x_0: Tensor, names: Sequence[object]) -> None:
    """Check that samples x_0 (N, C, ...) hold no NaN and are not far outside [-1, 1]; `names` are for the error.

    Raises:
        ConfigError: a sample fails the check; names the first one.
    """
    for image, name in zip(x_0, names, strict=True):
        rms = image.square().mean().sqrt().item()
        if not rms <= MAX_RMS:  # NaN too
            raise ConfigError(
                f"{name}: the sample has an RMS of {rms:.3g}, at most {MAX_RMS:g} is allowed (images are in [-1, 1]): "
                "clip x_0 in every step, reduce the guidance scale, or use more steps"
            )


def _images(
    model: DiffusionModel,
    steps_of: Callable[[slice], Iterator[Step]],
    settings: SamplingSettings,
    seeds: Sequence[int],
    batch_size: int,
) -> Iterator[Tensor]:
    in_parts = Parts(batch_size, model.device)

    def images() -> Iterator[Tensor]:
        parts = in_parts(lambda batch: select_steps(model, steps_of(batch), settings, 1), len(seeds))
        for batch, [last] in parts:
            check_range(last.x, [f"seed {seed}" for seed in seeds[batch]])
            yield from last.x

    return images()


def _without_labels(network: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def unconditional(x_t: Tensor, timesteps: Tensor, *, y: Tensor | None = None, **conditioning: Tensor) -> Tensor:
        return network(x_t, timesteps, **conditioning)

    return unconditional
