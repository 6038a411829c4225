"""Heun's method (Karras et al., arXiv:2206.00364, Alg. 1) for a variance-preserving process."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from rediffuse.diffusion.samplers import Path, Step, register_sampler
from rediffuse.diffusion.solvers import ddim

if TYPE_CHECKING:
    from torch import Tensor

    from rediffuse.diffusion.trajectory import Predictor

MAX_SIGMA = 80.0
"""For a larger sigma a step is that of DDIM. There sigma decreases by large factors in one step (it starts at 20,291
for the cosine schedule), and the mean of the slopes at both ends is worse than the first slope alone. The value is also
the limit in the paper (Table 1)."""


@register_sampler("heun")
def heun(predict: Predictor, x: Tensor, path: Path) -> Iterator[Step]:
    """Heun's method, of second order: a DDIM step, then the same step with the mean of eps at both ends (two calls).

    For x / sqrt(alpha_bar) as a function of sigma the probability-flow ODE is dx / dsigma = eps (Eq. 3), and a DDIM
    step is an Euler step. The network has no prediction of eps at the clean image and at pure noise, so a step from or
    to them is a DDIM step.
    """
    for start, end in pairwise(path):
        p = predict(x, end if start.t is None else start)
        if start.t is None:
            x = ddim.ddim_inverse_update(x, p.eps_from(start), start.alpha_bar, end.alpha_bar)
        elif end.t is None or max(start.sigma, end.sigma) > MAX_SIGMA:
            x = ddim.ddim_update(p.x_0, p.eps, end.alpha_bar)
        else:
            at_end = predict(ddim.ddim_update(p.x_0, p.eps, end.alpha_bar), end)
            x = ddim.ddim_inverse_update(x, (p.eps + at_end.eps) / 2, start.alpha_bar, end.alpha_bar)  # line 8
        yield Step(x, p.x_0)
