"""Ancestral sampling (DDPM, arXiv:2006.11239, Alg. 2)."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from rediffuse.diffusion.guidance import condition_mean
from rediffuse.diffusion.noise import Noise
from rediffuse.diffusion.process import PLAIN, Denoised, GaussianDiffusion, Model, SamplerOptions
from rediffuse.errors import ConfigError


class Step(NamedTuple):
    """Where one step of a sampler led, and the x_0 it saw ahead; each (N, C, ...)."""

    sample: Tensor
    x_0: Tensor


def step(
    process: GaussianDiffusion,
    model: Model,
    x_t: Tensor,
    t: Tensor,
    noise: Noise,
    options: SamplerOptions = PLAIN,
) -> Step:
    """One step from x_t (N, C, ...) at the indices t (N,) to x_{t-1}; no noise is added where t = 0."""
    p = process.predict(model, x_t, t, options.clip_denoised, options.denoised_fn, options.conditioning)
    z = noise(x_t)
    if options.guidance is not None:
        p = condition_mean(process, options.guidance, p, x_t, t, options.conditioning)
    return advance(p, t, z)


def advance(p: Denoised, t: Tensor, z: Tensor) -> Step:
    """Draw x_{t-1} from p with standard normal z (N, C, ...); its mean where t = 0 (Alg. 2, line 4)."""
    return Step(p.mean + _unless_last(t, z) * (0.5 * p.log_variance).exp() * z, p.x_0)


def steps(
    process: GaussianDiffusion,
    model: Model,
    x_T: Tensor,
    noise: Noise,
    options: SamplerOptions = PLAIN,
    *,
    depth: int | None = None,
) -> Iterator[Step]:
    """Walk from x_T (N, C, ...) down to x_0, one `Step` at a time.

    `depth` starts at that many steps above x_0 instead of at the top; x_T is then x at that depth.
    """
    x = x_T
    for index in reversed(range(reach(process, depth))):
        t = torch.full((len(x),), index, device=x.device)
        with torch.no_grad():
            one = step(process, model, x, t, noise, options)
        yield one
        x = one.sample


def sample(
    process: GaussianDiffusion,
    model: Model,
    x_T: Tensor,
    noise: Noise,
    options: SamplerOptions = PLAIN,
    *,
    depth: int | None = None,
) -> Tensor:
    """x_0 (N, C, ...) from x_T, a standard normal tensor of the same shape. For `depth` see `steps`."""
    x = x_T
    for one in steps(process, model, x_T, noise, options, depth=depth):
        x = one.sample
    return x


def reach(process: GaussianDiffusion, depth: int | None) -> int:
    """How many steps a walk of `depth` has; None is the whole chain.

    Raises:
        ConfigError: the chain is shorter than `depth`, or `depth` is below 1.
    """
    if depth is None:
        return process.num_timesteps
    if not 1 <= depth <= process.num_timesteps:
        raise ConfigError(f"depth={depth}: from 1 to {process.num_timesteps}, the number of timesteps, are allowed")
    return depth


def _unless_last(t: Tensor, x: Tensor) -> Tensor:
    """1 where t > 0 and 0 where t = 0, shaped to multiply x."""
    return (t != 0).to(x.dtype).view(-1, *[1] * (x.ndim - 1))
