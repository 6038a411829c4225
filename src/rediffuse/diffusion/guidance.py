"""Classifier guidance: the gradient of log p(y | x_t) shifts the mean or the score of a sampling step."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from rediffuse.diffusion.process import UNCONDITIONAL, Conditioning, Denoised, GaussianDiffusion, Model
from rediffuse.diffusion.schedule import Index

Guidance = Callable[..., Tensor]
"""(x_t (N, C, ...), timesteps (N,), **conditioning) -> gradient of log p(y | x_t) to x_t, (N, C, ...)."""


def condition_mean(
    process: GaussianDiffusion,
    guidance: Guidance,
    p: Denoised,
    x_t: Tensor,
    t: Index,
    conditioning: Conditioning = UNCONDITIONAL,
) -> Denoised:
    """Shift the mean of p(x_{t-1} | x_t) by variance times gradient (ADM, arXiv:2105.05233, Alg. 1)."""
    gradient = guidance(x_t, process.network_timesteps(t, x_t), **conditioning)
    return p._replace(mean=p.mean.float() + p.variance * gradient.float())


def condition_score(
    process: GaussianDiffusion,
    guidance: Guidance,
    x_0: Tensor,
    x_t: Tensor,
    t: Index,
    conditioning: Conditioning = UNCONDITIONAL,
) -> Tensor:
    """The predicted x_0 (N, C, ...) after the gradient has shifted eps, for DDIM (ADM, arXiv:2105.05233, Alg. 2)."""
    gradient = guidance(x_t, process.network_timesteps(t, x_t), **conditioning)
    eps = process.eps_from_x_0(x_t, t, x_0) - process.schedule.at("sqrt_one_minus_alpha_bar", t, x_t) * gradient
    return process.x_0_from_eps(x_t, t, eps)


def classifier_guidance(classifier: Model, scale: float) -> Guidance:
    """Guidance by a classifier of noisy images: scale times the gradient of log p(y | x_t).

    Args:
        classifier: (x_t, timesteps) -> logits (N, classes).
        scale: 1 samples from the posterior given the class; larger values trade diversity for fidelity (ADM, Sec. 4.3).

    Returns:
        A guidance that needs `y` (N,) in the conditioning.
    """

    def gradient(x_t: Tensor, timesteps: Tensor, *, y: Tensor, **_: object) -> Tensor:
        with torch.enable_grad():
            x = x_t.detach().requires_grad_(True)
            log_p = F.log_softmax(classifier(x, timesteps), dim=-1)
            chosen = log_p.gather(1, y.view(-1, 1)).sum()
            return scale * torch.autograd.grad(chosen, x)[0]

    return gradient
