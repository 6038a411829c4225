"""DPM-Solver++ (arXiv:2211.01095): a second-order multistep solver of the ODE that DDIM solves to first order."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from rediffuse.diffusion.samplers import Level, Path, Step, register_sampler
from rediffuse.diffusion.solvers import ddim

if TYPE_CHECKING:
    from torch import Tensor

    from rediffuse.diffusion.trajectory import Predictor


@register_sampler("dpm_solver")
def dpm_solver(predict: Predictor, x: Tensor, path: Path) -> Iterator[Step]:
    """DPM-Solver++(2M) (Alg. 2), one network call per step, in either direction.

    Two kinds of steps are of first order: the first step, which has no earlier prediction, and a step from or to the
    clean image, whose log-SNR is infinite.
    """
    x_0_before = h_before = None
    for start, end in pairwise(path):
        h = _log_snr(end) - _log_snr(start)  # lambda_t - lambda_s of the paper
        p = predict(x, end if start.t is None else start)
        if start.t is None:
            x = ddim.ddim_inverse_update(x, p.eps_from(start), start.alpha_bar, end.alpha_bar)
        elif x_0_before is None or h_before is None or not h.isfinite():
            x = ddim.ddim_update(p.x_0, p.eps, end.alpha_bar)
        else:
            # Line 7: D = (1 + 1/(2r)) x_0 - 1/(2r) x_0_before, r = h_before / h
            data = p.x_0 + h / (2 * h_before) * (p.x_0 - x_0_before)
            # Line 8, where e^-h is signal_s noise_t / (signal_t noise_s): DDIM's update with D in the place of x_0
            ratio = end.noise / start.noise
            x = ratio * x + (end.signal - ratio * start.signal) * data
        x_0_before, h_before = p.x_0, h
        yield Step(x, p.x_0)


def _log_snr(level: Level) -> Tensor:
    return -level.sigma.log()
