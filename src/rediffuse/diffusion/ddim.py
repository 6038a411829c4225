"""DDIM (arXiv:2010.02502): sampling with as much noise as asked for, and the way back from an image to its noise."""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from rediffuse.diffusion.ddpm import Step, reach
from rediffuse.diffusion.guidance import condition_score
from rediffuse.diffusion.noise import Noise
from rediffuse.diffusion.process import PLAIN, Denoised, GaussianDiffusion, Model, SamplerOptions

Grid = Literal["compat", "aligned"]


def step(
    process: GaussianDiffusion,
    model: Model,
    x_t: Tensor,
    t: Tensor,
    options: SamplerOptions = PLAIN,
    *,
    eta: float = 0.0,
    noise: Noise | None = None,
) -> Step:
    """One step from x_t (N, C, ...) at the indices t (N,) to x_{t-1}.

    Args:
        process: the diffusion process.
        model: see `process.Model`.
        x_t: (N, C, ...).
        t: (N,) indices.
        options: clipping, guidance, conditioning.
        eta: 0 is deterministic, 1 has the variance of DDPM.
        noise: needed where eta > 0; drawn once a step, whatever eta is.
    """
    p = _predict(process, model, x_t, t, options)
    return advance(process, p, x_t, t, eta=eta, z=None if noise is None else noise(x_t))


def advance(
    process: GaussianDiffusion, p: Denoised, x_t: Tensor, t: Tensor, *, eta: float = 0.0, z: Tensor | None = None
) -> Step:
    """`step` once the network has spoken; z (N, C, ...) is standard normal, and may be absent where eta = 0."""
    assert z is not None or eta == 0, "eta > 0 needs noise"
    eps = process.eps_from_x_0(x_t, t, p.x_0)
    alpha_bar = process.schedule.at("alpha_bar", t, x_t)
    alpha_bar_prev = process.schedule.at("alpha_bar_prev", t, x_t)
    # Eq. 16: sigma is 0 at the last index, since alpha_bar_prev is 1 there
    sigma = eta * ((1 - alpha_bar_prev) / (1 - alpha_bar)).sqrt() * (1 - alpha_bar / alpha_bar_prev).sqrt()
    # Eq. 12; at eta = 1 rounding can take the difference just below zero
    x_prev = alpha_bar_prev.sqrt() * p.x_0 + (1 - alpha_bar_prev - sigma**2).clamp(min=0).sqrt() * eps
    return Step(x_prev if z is None else x_prev + sigma * z, p.x_0)


def steps(
    process: GaussianDiffusion,
    model: Model,
    x_T: Tensor,
    options: SamplerOptions = PLAIN,
    *,
    eta: float = 0.0,
    noise: Noise | None = None,
    depth: int | None = None,
) -> Iterator[Step]:
    """Walk from x_T (N, C, ...) down to x_0; `depth` starts at that many steps above x_0 instead of at the top."""
    x = x_T
    for index in reversed(range(reach(process, depth))):
        with torch.no_grad():
            one = step(process, model, x, _indices(x, index), options, eta=eta, noise=noise)
        yield one
        x = one.sample


def sample(
    process: GaussianDiffusion,
    model: Model,
    x_T: Tensor,
    options: SamplerOptions = PLAIN,
    *,
    eta: float = 0.0,
    noise: Noise | None = None,
    depth: int | None = None,
) -> Tensor:
    """x_0 (N, C, ...) from x_T. For the arguments see `step` and `steps`."""
    x = x_T
    for one in steps(process, model, x_T, options, eta=eta, noise=noise, depth=depth):
        x = one.sample
    return x


def invert_step(
    process: GaussianDiffusion,
    model: Model,
    x: Tensor,
    t: Tensor,
    options: SamplerOptions = PLAIN,
    *,
    grid: Grid = "compat",
) -> Step:
    """One step of the probability-flow ODE towards noise, with the step of Eq. 12 run backwards.

    `compat` is guided-diffusion's and DIRE's: x at index t moves from alpha_bar_t to alpha_bar_{t+1}. The image, which
    has no noise, is so treated as if it were x at the first index, and the last step ends at alpha_bar = 0.

    `aligned` mirrors the sampling grid: x moves from alpha_bar_{t-1} to alpha_bar_t, from 1 to begin with, and the
    network is told the t at which `step` will walk the same stretch back. It is `step`'s exact inverse but for eps,
    which is taken at the near end of the stretch, so the error is of first order in its length.
    """
    return retreat(process, _predict(process, model, x, t, options), x, t, grid=grid)


def retreat(process: GaussianDiffusion, p: Denoised, x: Tensor, t: Tensor, *, grid: Grid = "compat") -> Step:
    """`invert_step` once the network has spoken."""
    eps = process.eps_from_x_0(x, t, p.x_0)
    at = process.schedule.at
    if grid == "compat":
        alpha_bar_next = at("alpha_bar_next", t, x)
        return Step(alpha_bar_next.sqrt() * p.x_0 + (1 - alpha_bar_next).sqrt() * eps, p.x_0)
    alpha_bar, alpha_bar_prev = at("alpha_bar", t, x), at("alpha_bar_prev", t, x)
    x_0 = (x - (1 - alpha_bar_prev).sqrt() * eps) / alpha_bar_prev.sqrt()
    return Step(alpha_bar.sqrt() * x_0 + (1 - alpha_bar).sqrt() * eps, p.x_0)


def invert_steps(
    process: GaussianDiffusion,
    model: Model,
    x_0: Tensor,
    options: SamplerOptions = PLAIN,
    *,
    grid: Grid = "compat",
    depth: int | None = None,
) -> Iterator[Step]:
    """Walk from images x_0 (N, C, ...) towards noise; `depth` stops after that many steps."""
    x = x_0
    for index in range(reach(process, depth)):
        with torch.no_grad():
            one = invert_step(process, model, x, _indices(x, index), options, grid=grid)
        yield one
        x = one.sample


def invert(
    process: GaussianDiffusion,
    model: Model,
    x_0: Tensor,
    options: SamplerOptions = PLAIN,
    *,
    grid: Grid = "compat",
    depth: int | None = None,
) -> Tensor:
    """x_T (N, C, ...), from which `sample` leads back. For the arguments see `invert_step` and `invert_steps`."""
    x = x_0
    for one in invert_steps(process, model, x_0, options, grid=grid, depth=depth):
        x = one.sample
    return x


def _predict(process: GaussianDiffusion, model: Model, x: Tensor, t: Tensor, options: SamplerOptions) -> Denoised:
    p = process.predict(model, x, t, options.clip_denoised, options.denoised_fn, options.conditioning)
    if options.guidance is None:
        return p
    return condition_score(process, options.guidance, p, x, t, options.conditioning)


def _indices(x: Tensor, index: int) -> Tensor:
    return torch.full((len(x),), index, device=x.device)
