"""guided-diffusion's likelihood terms with their old names; see `rediffuse.diffusion.likelihood`."""

import torch
from torch import Tensor

from rediffuse.diffusion import likelihood
from rediffuse.diffusion.likelihood import approx_standard_normal_cdf

__all__ = ["approx_standard_normal_cdf", "discretized_gaussian_log_likelihood", "normal_kl"]


def normal_kl(mean1: Tensor | float, logvar1: Tensor | float, mean2: Tensor | float, logvar2: Tensor | float) -> Tensor:
    """KL(N_1 || N_2) of diagonal Gaussians, elementwise, in nats; arguments broadcast, at least one is a tensor."""
    like = next((value for value in (mean1, logvar1, mean2, logvar2) if isinstance(value, Tensor)), None)
    assert like is not None, "one of the four has to be a tensor"
    as_tensors = (torch.as_tensor(value).to(like) for value in (mean1, logvar1, mean2, logvar2))
    return likelihood.normal_kl(*as_tensors)


def discretized_gaussian_log_likelihood(x: Tensor, *, means: Tensor, log_scales: Tensor) -> Tensor:
    """log of the Gaussian's probability of the bin of each 8-bit value, in nats; x in [-1, 1], all of one shape."""
    assert x.shape == means.shape == log_scales.shape
    return likelihood.discretized_gaussian_log_likelihood(x, means, log_scales)
