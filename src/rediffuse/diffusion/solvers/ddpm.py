"""Ancestral sampling (DDPM, arXiv:2006.11239, Alg. 2)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from rediffuse.diffusion.samplers import Path, Step, register_sampler

if TYPE_CHECKING:
    from torch import Tensor

    from rediffuse.diffusion.process import Denoised
    from rediffuse.diffusion.trajectory import Predictor


@register_sampler("ddpm", draws="always")
def ddpm(predict: Predictor, x: Tensor, path: Path) -> Iterator[Step]:
    """Draw every x_{t-1} from p(x_{t-1} | x_t), with the fixed variance of the process or the learned one."""
    for start, _ in pairwise(path):
        assert start.t is not None, "ancestral sampling starts at a timestep"
        p = predict.posterior(x, start)
        x = ddpm_update(p, start.t, predict.noise(x))
        yield Step(x, p.x_0)


def ddpm_update(p: Denoised, t: Tensor | int, z: Tensor) -> Tensor:
    """x_{t-1} (N, C, ...) from p with standard normal z; at t = 0 the mean of p (line 4). t: (N,), or one int."""
    if isinstance(t, int):
        return p.mean + (0.5 * p.log_variance).exp() * z if t else p.mean
    is_noisy = (t != 0).view(-1, *[1] * (z.ndim - 1))
    return p.mean + is_noisy * (0.5 * p.log_variance).exp() * z
