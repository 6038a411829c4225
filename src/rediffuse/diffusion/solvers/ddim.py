"""DDIM (arXiv:2010.02502): sampling with as much noise as asked for, and its deterministic form in both directions."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from rediffuse.diffusion.samplers import Path, Step, register_sampler

if TYPE_CHECKING:
    from torch import Tensor

    from rediffuse.diffusion.walk import Predictor


@register_sampler("ddim", draws="eta")
def ddim(predict: Predictor, x: Tensor, path: Path) -> Iterator[Step]:
    """One network call per step, of first order.

    The network is told the timestep of the level where a step starts. Only on a path that starts at the clean image,
    an inversion on the sampling grid, it is told that of the level where the step ends: sampling is told the same one
    on the way back, so that equal eps give exactly x again.
    """
    eta = predict.options.eta
    mirrored = path[0].t is None
    for start, end in pairwise(path):
        p = predict(x, end if mirrored else start)
        # In the precision of x, as guided-diffusion computes: 1 - alpha_bar then has an error of 1e-3 near the image.
        alpha_bar, alpha_bar_next = start.alpha_bar.to(x.dtype), end.alpha_bar.to(x.dtype)
        if mirrored:
            x = ddim_inverse_update(x, p.eps, alpha_bar, alpha_bar_next)
        elif eta:
            x = ddim_update(p.x_0, p.eps, alpha_bar_next, ddim_sigma(eta, alpha_bar, alpha_bar_next), predict.noise(x))
        else:
            x = ddim_update(p.x_0, p.eps, alpha_bar_next)
        yield Step(x, p.x_0)


def ddim_update(
    x_0: Tensor, eps: Tensor, alpha_bar: Tensor, sigma: Tensor | None = None, z: Tensor | None = None
) -> Tensor:
    """x (N, C, ...) at the level `alpha_bar`, from the predicted x_0 and eps, and from noise z where sigma is given.

    Eq. 12 as sampling uses it; with the alpha_bar of the next noisier level, guided-diffusion's inversion.
    """
    if sigma is None or z is None:
        return alpha_bar.sqrt() * x_0 + (1 - alpha_bar).sqrt() * eps
    # At eta = 1 rounding can take the difference just below zero.
    return alpha_bar.sqrt() * x_0 + (1 - alpha_bar - sigma**2).clamp(min=0).sqrt() * eps + sigma * z


def ddim_inverse_update(x: Tensor, eps: Tensor, alpha_bar: Tensor, alpha_bar_next: Tensor) -> Tensor:
    """x (N, C, ...) moved along eps from the level `alpha_bar` to `alpha_bar_next`: Eq. 12, solved for x_t."""
    x_0 = (x - (1 - alpha_bar).sqrt() * eps) / alpha_bar.sqrt()
    return ddim_update(x_0, eps, alpha_bar_next)


def ddim_sigma(eta: float, alpha_bar: Tensor, alpha_bar_prev: Tensor) -> Tensor:
    """Standard deviation of the noise of a step (Eq. 16); 0 where alpha_bar_prev is 1."""
    return eta * ((1 - alpha_bar_prev) / (1 - alpha_bar)).sqrt() * (1 - alpha_bar / alpha_bar_prev).sqrt()
