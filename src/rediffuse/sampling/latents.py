"""Invert images to latents, decode latents, and interpolate between two latents."""

from collections.abc import Iterator

import torch
from torch import Tensor

from rediffuse.diffusion import trajectory
from rediffuse.diffusion.process import SamplerOptions
from rediffuse.diffusion.samplers import get_sampler
from rediffuse.errors import ConfigError
from rediffuse.sampling.config import SamplingSettings
from rediffuse.sampling.sample import check, check_range, denoise_from, select_steps
from rediffuse.transfer import to_device
from rediffuse.zoo.labels import Labels, class_labels
from rediffuse.zoo.model import DiffusionModel
from rediffuse.zoo.parts import Parts


def invert(
    model: DiffusionModel, x_0: Tensor, settings: SamplingSettings | None = None, *, labels: Labels | None = None
) -> Tensor:
    """Invert images to latents with a sampler on the reversed sampling grid; `decode` does the reverse.

    Args:
        model: a U-Net.
        x_0: (N, C, S, S) float32 in [-1, 1], of the model's size.
        settings: settings with a sampler that can invert, and without noise (eta = 0); None is `SamplingSettings()`.
        labels: see `sample.sample`.

    Returns:
        x_T (N, C, S, S) float32, of `model.shape`, on the model's device.

    Raises:
        ConfigError: the settings draw noise, or x_0 or the labels do not fit the model.
    """
    settings = settings or SamplingSettings()
    _check(model, x_0, settings, (model.image_channels, *[model.image_size] * (len(model.shape) - 1)))
    y = class_labels(model, labels, len(x_0))
    conditioning = {} if y is None else {"y": y}
    options = SamplerOptions(clip_denoised=settings.clip and model.autoencoder is None, conditioning=conditioning)
    process = model.process(settings.respacing)
    network = model.denoiser(settings, settings.precision)
    encoded = model.encode(to_device(x_0, model.device))
    return trajectory.last(trajectory.invert(settings.sampler, process, network, encoded, options))


def decode(
    model: DiffusionModel, x_T: Tensor, settings: SamplingSettings | None = None, *, labels: Labels | None = None
) -> Tensor:
    """Sample images x_0 (N, C, S, S), on the CPU, from latents x_T; arguments and errors are those of `invert`."""
    settings = settings or SamplingSettings()
    _check(model, x_T, settings, model.shape)
    y = class_labels(model, labels, len(x_T))
    network = model.denoiser(settings, settings.precision)

    def last_of(part: slice) -> Tensor:
        labels_of = None if y is None else y[part]
        start = to_device(x_T[part], model.device)
        steps = denoise_from(model, network, start, settings, noise=_no_noise, labels=labels_of)
        [last] = select_steps(model, steps, settings, 1)
        return last.x

    x_0 = torch.cat([x for _, x in Parts(len(x_T), model.device)(last_of, len(x_T))])
    check_range(x_0, [f"latent {index}" for index in range(len(x_0))])
    return x_0


def slerp(a: Tensor, b: Tensor, fraction: float) -> Tensor:
    """Spherical interpolation of two latents: the point at `fraction` of the arc from a to b.

    With linear interpolation the norm between a and b would be smaller than that of noise. If a and b have equal norms,
    all points of the arc have the same norm.

    Args:
        a: a latent, treated as one vector.
        b: shaped like a.
        fraction: 0 gives a, 1 gives b.

    Raises:
        ConfigError: a and b are exactly opposite, so that there is no shortest arc; or one of them is 0.
    """
    # DDIM (arXiv:2010.02502), Eq. 67 (from Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985):
    # sin((1 - f) theta) / sin(theta) a + sin(f theta) / sin(theta) b, cos(theta) = <a, b> / (|a| |b|)
    u, v = a.double().flatten(), b.double().flatten()
    lengths = u.norm() * v.norm()
    if not lengths > 0:
        raise ConfigError("slerp: a latent is 0, which has no direction")
    theta = torch.acos((u @ v / lengths).clamp(-1, 1))
    if torch.pi - theta < 1e-6:
        raise ConfigError("slerp: the two latents are opposite, so there is no shortest arc between them")
    if theta < 1e-6:  # the limit, where sin(theta) vanishes
        return torch.lerp(a, b, fraction)
    weights = torch.sin(torch.stack([(1 - fraction) * theta, fraction * theta])) / torch.sin(theta)
    return (weights[0] * a.double() + weights[1] * b.double()).to(a.dtype)


def interpolate(
    model: DiffusionModel,
    a: Tensor,
    b: Tensor,
    settings: SamplingSettings | None = None,
    *,
    num_frames: int = 8,
    label: int | None = None,
    batch_size: int = 16,
) -> Iterator[Tensor]:
    """The images along the arc between two latents, including both ends.

    Args:
        model: the model of the inversion.
        a: a latent (C, S, S), from `invert`.
        b: another latent, shaped like a.
        settings: the settings of the inversion; None is `SamplingSettings()`.
        num_frames: number of images, at least 2.
        label: the class of all frames, for a class-conditional model.
        batch_size: frames per call of the network.

    Yields:
        x_0 (C, S, S) float32 on the CPU.

    Raises:
        ConfigError: as `invert` and `slerp`, or a number is too small.
    """
    if num_frames < 2:
        raise ConfigError(f"frames={num_frames}: at least 2, the two ends, are needed")
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size}: at least 1 is needed")
    latents = torch.stack([slerp(a, b, frame / (num_frames - 1)) for frame in range(num_frames)])
    for part in latents.split(batch_size):
        yield from decode(model, part, settings, labels=None if label is None else [label] * len(part))


def _check(model: DiffusionModel, x: Tensor, settings: SamplingSettings, needed: tuple[int, ...]) -> None:
    get_sampler("sampler", settings.sampler, inverts=True)
    if settings.eta:
        raise ConfigError(f"eta={settings.eta}: latents need sampling without noise, eta=0")
    check(model, settings, "unet", num_samples=len(x))
    if x.shape[1:] != needed or x.dtype != torch.float32:
        raise ConfigError(
            f"given {tuple(x.shape)} {str(x.dtype).removeprefix('torch.')}; (N, {', '.join(map(str, needed))}) float32 "
            "is needed"
        )


def _no_noise(x: Tensor) -> Tensor:
    raise AssertionError("a deterministic sampler drew noise")
