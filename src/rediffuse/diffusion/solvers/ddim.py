"""DDIM (arXiv:2010.02502): sampling with an adjustable share of noise; without noise also inversion."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from rediffuse.diffusion.samplers import Path, Step, register_sampler

if TYPE_CHECKING:
    from torch import Tensor

    from rediffuse.diffusion.trajectory import Predictor


@register_sampler("ddim", draws="eta")
def ddim(predict: Predictor, x: Tensor, path: Path) -> Iterator[Step]:
    """DDIM: first order, one network call per step.

    The network is given the timestep of the level where a step starts. There is one exception: on a path that starts at
    the clean image (an inversion on the sampling grid) it is given the timestep of the level where the step ends.
    Sampling uses the same timestep for the reverse step, so that equal eps give exactly the same x.
    """
    eta = predict.options.eta
    mirrored = path[0].t is None
    for start, end in pairwise(path):
        p = predict(x, end if mirrored else start)
        # In the precision of x, as in guided-diffusion; so 1 - alpha_bar has a relative error of 1e-3 near the image.
        alpha_bar, alpha_bar_next = start.alpha_bar.to(x.dtype), end.alpha_bar.to(x.dtype)
        if mirrored:
            x = ddim_inverse_update(x, p.eps_from(start), alpha_bar, alpha_bar_next)
        elif eta:
            x = ddim_update(p.x_0, p.eps, alpha_bar_next, ddim_sigma(eta, alpha_bar, alpha_bar_next), predict.noise(x))
        else:
            x = ddim_update(p.x_0, p.eps, alpha_bar_next)
        yield Step(x, p.x_0)


def ddim_update(
    x_0: Tensor, eps: Tensor, alpha_bar: Tensor, sigma: Tensor | None = None, z: Tensor | None = None
) -> Tensor:
    """x (N, C, ...) at the level `alpha_bar`, from the predicted x_0 and eps, and from noise z if sigma is given.

    This is Eq. 12. With the alpha_bar of the next noisier level it is guided-diffusion's inversion step.
    """
    if sigma is None or z is None:
        return alpha_bar.sqrt() * x_0 + (1 - alpha_bar).sqrt() * eps
    # At eta = 1 the difference can be slightly negative because of rounding.
    return alpha_bar.sqrt() * x_0 + (1 - alpha_bar - sigma**2).clamp(min=0).sqrt() * eps + sigma * z


def ddim_inverse_update(x: Tensor, eps: Tensor, alpha_bar: Tensor, alpha_bar_next: Tensor) -> Tensor:
    """Move x (N, C, ...) from the level `alpha_bar` to `alpha_bar_next` with a given eps: Eq. 12, solved for x_t."""
    x_0 = (x - (1 - alpha_bar).sqrt() * eps) / alpha_bar.sqrt()
    return ddim_update(x_0, eps, alpha_bar_next)


def ddim_sigma(eta: float, alpha_bar: Tensor, alpha_bar_prev: Tensor) -> Tensor:
    """Standard deviation of the noise of a step (Eq. 16); 0 where alpha_bar_prev is 1."""
    return eta * ((1 - alpha_bar_prev) / (1 - alpha_bar)).sqrt() * (1 - alpha_bar / alpha_bar_prev).sqrt()
