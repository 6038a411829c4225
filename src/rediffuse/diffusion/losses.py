"""Training losses: the error of the network's prediction, the variational bound, or both."""

from typing import Literal, get_args

import torch
from torch import Tensor

from rediffuse.diffusion.likelihood import mean_flat, variational_term
from rediffuse.diffusion.process import UNCONDITIONAL, Conditioning, GaussianDiffusion, Model, SamplerOptions

LossType = Literal["mse", "rescaled_mse", "kl", "rescaled_kl"]

_UNCLIPPED = SamplerOptions(clip_denoised=False)


def training_losses(
    process: GaussianDiffusion,
    model: Model,
    x_0: Tensor,
    t: Tensor,
    noise: Tensor,
    loss_type: LossType = "mse",
    conditioning: Conditioning = UNCONDITIONAL,
) -> dict[str, Tensor]:
    """The losses of one batch, per sample.

    `mse` and `rescaled_mse` are L_simple, or L_hybrid if the variance is learned. The bound in L_hybrid trains only the
    variance, because the mean is detached in it (Improved DDPM, arXiv:2102.09672, Eq. 16). `rescaled_mse` multiplies
    this bound by T / 1000. `kl` is the term of the bound at the sampled timestep; `rescaled_kl` is T times that term,
    an estimate of the whole bound.

    Args:
        process: the diffusion process.
        model: see `process.Model`.
        x_0: (N, C, ...) in [-1, 1].
        t: (N,) indices.
        noise: (N, C, ...) standard normal.
        loss_type: see above.
        conditioning: keyword arguments for the model.

    Returns:
        `loss` (N,); for the first two types also its terms `mse` and, if the variance is learned, `vb`.
    """
    assert loss_type in get_args(LossType), loss_type
    x_t = process.q_sample(x_0, t, noise)
    output = process.call(model, x_t, t, conditioning)

    def bound(output: Tensor) -> Tensor:
        p = process.denoised(output, x_t, t, _UNCLIPPED)
        return variational_term(process, p, x_0, x_t, t)

    if loss_type in ("kl", "rescaled_kl"):
        return {"loss": bound(output) * (process.num_timesteps if loss_type == "rescaled_kl" else 1)}

    terms = {}
    prediction = output
    if process.learns_variance:
        prediction, v = output.chunk(2, dim=1)
        vb = bound(torch.cat([prediction.detach(), v], dim=1))
        terms["vb"] = vb * (process.num_timesteps / 1000) if loss_type == "rescaled_mse" else vb
    terms["mse"] = mean_flat((_target(process, x_0, x_t, t, noise) - prediction) ** 2)
    return {"loss": sum(terms.values(), torch.zeros_like(terms["mse"])), **terms}


def _target(process: GaussianDiffusion, x_0: Tensor, x_t: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    match process.prediction:
        case "eps":
            return noise
        case "x_0":
            return x_0
        case "x_prev":
            return process.posterior(x_0, x_t, t).mean
        case "v":
            return process.v_from_x_0(x_0, t, noise)
        case "flow":
            return noise - x_0
