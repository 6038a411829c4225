"""DPM-Solver++ (arXiv:2211.01095): a second-order multistep solver of the ODE that DDIM solves to first order."""

from collections.abc import Iterator

import torch
from torch import Tensor

from rediffuse.diffusion.ddpm import Step, reach
from rediffuse.diffusion.guidance import condition_score
from rediffuse.diffusion.process import PLAIN, GaussianDiffusion, Model, SamplerOptions


def steps(process: GaussianDiffusion, model: Model, x_T: Tensor, options: SamplerOptions = PLAIN) -> Iterator[Step]:
    """Walk from x_T (N, C, ...) to x_0 by DPM-Solver++(2M) (Alg. 2), on the process's own timesteps.

    The first step has no history and the last ends at sigma = 0: both are of first order.
    """
    alpha_bar = torch.from_numpy(process.schedule.alpha_bar)
    alpha, sigma = alpha_bar.sqrt().tolist(), (1 - alpha_bar).sqrt().tolist()
    log_snr = (alpha_bar / (1 - alpha_bar)).log().mul(0.5).tolist()  # lambda of the paper
    x, x_0_before = x_T, x_T
    top = reach(process, None) - 1
    for i in range(top, -1, -1):
        x_0 = _denoise(process, model, x, i, options)
        if i == 0:
            x = x_0
        else:
            h = log_snr[i - 1] - log_snr[i]
            data = x_0
            if i < top:
                r = (log_snr[i] - log_snr[i + 1]) / h
                data = (1 + 1 / (2 * r)) * x_0 - 1 / (2 * r) * x_0_before
            # Alg. 2, line 8, where e^-h is alpha_s sigma_t / (alpha_t sigma_s)
            shrink = alpha[i] * sigma[i - 1] / (alpha[i - 1] * sigma[i])
            x = sigma[i - 1] / sigma[i] * x - alpha[i - 1] * (shrink - 1) * data
        x_0_before = x_0
        yield Step(x, x_0)


def sample(process: GaussianDiffusion, model: Model, x_T: Tensor, options: SamplerOptions = PLAIN) -> Tensor:
    """x_0 (N, C, ...) from x_T, a standard normal tensor of the same shape."""
    x = x_T
    for one in steps(process, model, x_T, options):
        x = one.sample
    return x


def _denoise(process: GaussianDiffusion, model: Model, x: Tensor, index: int, options: SamplerOptions) -> Tensor:
    t = torch.full((len(x),), index, device=x.device)
    with torch.no_grad():
        p = process.predict(model, x, t, options.clip_denoised, options.denoised_fn, options.conditioning)
        if options.guidance is not None:
            p = condition_score(process, options.guidance, p, x, t, options.conditioning)
    return p.x_0
