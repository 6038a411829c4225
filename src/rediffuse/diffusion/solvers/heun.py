"""Heun's method (Karras et al., arXiv:2206.00364, Alg. 1) for a variance-preserving process."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from rediffuse.diffusion.samplers import Path, Step, register_sampler
from rediffuse.diffusion.solvers.ddim import ddim_inverse_update, ddim_update

if TYPE_CHECKING:
    from torch import Tensor

    from rediffuse.diffusion.walk import Predictor

MAX_SIGMA = 80.0
"""Above this noise a step is DDIM's. There sigma falls by large factors in one step (the cosine schedule begins at
20,291), and the mean of two slopes, one of them at the far end, is a worse estimate than the first alone. It is also
the range of the paper (Table 1)."""


@register_sampler("heun")
def heun(predict: Predictor, x: Tensor, path: Path) -> Iterator[Step]:
    """A DDIM step, and the same step again with the mean of eps at both of its ends: second order, two network calls.

    With x / sqrt(alpha_bar) as a function of sigma the probability-flow ODE is dx / dsigma = eps (Eq. 3), of which
    DDIM's step is Euler's. The clean image and pure noise have no eps of their own: a step to or from them is DDIM's.
    """
    for start, end in pairwise(path):
        p = predict(x, end if start.t is None else start)
        if start.t is None:
            x = ddim_inverse_update(x, p.eps, start.alpha_bar, end.alpha_bar)
        elif end.t is None or max(start.sigma, end.sigma) > MAX_SIGMA:
            x = ddim_update(p.x_0, p.eps, end.alpha_bar)
        else:
            at_end = predict(ddim_update(p.x_0, p.eps, end.alpha_bar), end)
            x = ddim_inverse_update(x, (p.eps + at_end.eps) / 2, start.alpha_bar, end.alpha_bar)  # line 8
        yield Step(x, p.x_0)
