"""The variational bound of log p(x_0), in bits per dimension."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from rediffuse.diffusion.noise import Noise
from rediffuse.diffusion.process import UNCONDITIONAL, Conditioning, Denoised, GaussianDiffusion, Model, SamplerOptions


class BitsPerDimension(NamedTuple):
    """The bound on -log2 p(x_0) / dimensions and its terms; columns are ordered from the noisiest timestep to t = 0."""

    total: Tensor
    """(N,): the sum of all `vb` and `prior`."""
    prior: Tensor
    """(N,): KL of q(x_T | x_0) from the standard normal distribution."""
    vb: Tensor
    """(N, T): KL of the posterior from the model's p; at t = 0 the negative log-likelihood of the decoder."""
    x_0_mse: Tensor
    """(N, T): mean squared error of the predicted x_0."""
    eps_mse: Tensor
    """(N, T): mean squared error of the predicted eps."""


def bits_per_dimension(
    process: GaussianDiffusion,
    model: Model,
    x_0: Tensor,
    noise: Noise,
    *,
    clip_denoised: bool = True,
    conditioning: Conditioning = UNCONDITIONAL,
) -> BitsPerDimension:
    """Estimate the bound with one noise sample per timestep (DDPM, arXiv:2006.11239, Eq. 5).

    Args:
        process: the diffusion process.
        model: see `process.Model`.
        x_0: (N, C, ...) in [-1, 1], from 8-bit values.
        noise: drawn once per timestep.
        clip_denoised: clip the predicted x_0 to [-1, 1].
        conditioning: keyword arguments for the model.
    """
    options = SamplerOptions(clip_denoised=clip_denoised, conditioning=conditioning)
    vb, x_0_mse, eps_mse = [], [], []
    for index in reversed(range(process.num_timesteps)):
        t = torch.full((len(x_0),), index, device=x_0.device)
        z = noise(x_0)
        x_t = process.q_sample(x_0, t, z)
        with torch.no_grad():
            p = process.predict(model, x_t, t, options)
        vb.append(variational_term(process, p, x_0, x_t, t))
        x_0_mse.append(mean_flat((p.x_0 - x_0) ** 2))
        eps_mse.append(mean_flat((process.eps_from_x_0(x_t, t, p.x_0) - z) ** 2))
    prior, bound = prior_bits(process, x_0), torch.stack(vb, dim=1)
    return BitsPerDimension(
        bound.sum(dim=1) + prior, prior, bound, torch.stack(x_0_mse, dim=1), torch.stack(eps_mse, dim=1)
    )


def variational_term(process: GaussianDiffusion, p: Denoised, x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """One term of the bound, (N,) bits per dimension: L_{t-1} where t > 0, and L_0 where t = 0 (DDPM, Eq. 5)."""
    q = process.posterior(x_0, x_t, t)
    kl = mean_flat(normal_kl(q.mean, q.log_variance, p.mean, p.log_variance)) / math.log(2)
    log_likelihood = discretized_gaussian_log_likelihood(x_0, p.mean, 0.5 * p.log_variance)
    return torch.where(t == 0, -mean_flat(log_likelihood) / math.log(2), kl)


def prior_bits(process: GaussianDiffusion, x_0: Tensor) -> Tensor:
    """KL of q(x_T | x_0) from the standard normal distribution, (N,) bits per dimension; it has no parameters."""
    t = torch.full((len(x_0),), process.num_timesteps - 1, device=x_0.device)
    q = process.q_mean_variance(x_0, t)
    zero = torch.zeros_like(q.mean)
    return mean_flat(normal_kl(q.mean, q.log_variance, zero, zero)) / math.log(2)


def normal_kl(mean_1: Tensor, log_variance_1: Tensor, mean_2: Tensor, log_variance_2: Tensor) -> Tensor:
    """KL(N_1 || N_2) of diagonal Gaussians, elementwise, in nats; the arguments broadcast."""
    # The terms nearly cancel for similar Gaussians, so the order of summation must be that of guided-diffusion.
    return 0.5 * (
        -1
        + log_variance_2
        - log_variance_1
        + (log_variance_1 - log_variance_2).exp()
        + (mean_1 - mean_2) ** 2 * (-log_variance_2).exp()
    )


def discretized_gaussian_log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """log of the Gaussian's probability of the bin of each 8-bit value, in nats (DDPM, Eq. 13).

    Args:
        x: values k / 127.5 - 1 in [-1, 1]; the first and the last bin extend to infinity.
        mean: mean of the Gaussian, shaped like x.
        log_scale: log of its standard deviation, shaped like x.
    """
    inverse_scale = (-log_scale).exp()
    below = approx_standard_normal_cdf(inverse_scale * (x - mean - 1 / 255))
    above = approx_standard_normal_cdf(inverse_scale * (x - mean + 1 / 255))
    mass = torch.where(x < -0.999, above, torch.where(x > 0.999, 1 - below, above - below))
    return mass.clamp(min=1e-12).log()


def approx_standard_normal_cdf(x: Tensor) -> Tensor:
    """The tanh approximation of the standard normal's distribution function (Page 1977), as in guided-diffusion."""
    return 0.5 * (1 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)).tanh())


def mean_flat(x: Tensor) -> Tensor:
    """(N, ...) to (N,): the mean over all dimensions but the first."""
    return x.flatten(1).mean(dim=1)
