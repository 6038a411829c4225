"""The Gaussian diffusion process: q forwards, p backwards, and what a network's output means."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rediffuse.diffusion.config import Prediction, Variance
from rediffuse.diffusion.schedule import NoiseSchedule
from rediffuse.errors import ConfigError

Model = Callable[..., Tensor]
"""(x_t (N, C, ...), timesteps (N,), **conditioning) -> (N, C, ...), or (N, 2C, ...) where the variance is learned."""

Conditioning = Mapping[str, Any]
UNCONDITIONAL: Conditioning = MappingProxyType({})


class Gaussian(NamedTuple):
    """A diagonal Gaussian; each tensor broadcasts against (N, C, ...)."""

    mean: Tensor
    variance: Tensor
    log_variance: Tensor


class Denoised(NamedTuple):
    """p(x_{t-1} | x_t), and the x_0 that was predicted on the way; each tensor is (N, C, ...)."""

    mean: Tensor
    variance: Tensor
    log_variance: Tensor
    x_0: Tensor


@dataclass(frozen=True, kw_only=True)
class SamplerOptions:
    """What every sampler can be asked for beside its own settings."""

    clip_denoised: bool = True
    """Clip the predicted x_0 to [-1, 1]."""
    denoised_fn: Callable[[Tensor], Tensor] | None = None
    """Applied to the predicted x_0, before clipping."""
    guidance: Callable[..., Tensor] | None = None
    """(x_t, timesteps, **conditioning) -> gradient of log p(y | x_t) to x_t, (N, C, ...)."""
    conditioning: Conditioning = field(default_factory=dict)
    """Keyword arguments for the model and for `guidance`: `y`, `low_res`."""


PLAIN = SamplerOptions()
"""Clipped, unguided, unconditional."""


def rescale(timesteps: Tensor, num_train_timesteps: int) -> Tensor:
    """Timesteps (N,) as if the network had been trained on a chain of 1000."""
    return timesteps * (1000.0 / num_train_timesteps)


@dataclass(frozen=True, kw_only=True)
class GaussianDiffusion:
    """A noise schedule, and what a network says about one step back along it.

    Throughout, x_0, x_t and noise are (N, C, ...), and t (N,) int64 holds indices into the schedule, 0 being the least
    noise. The network itself is told `network_timesteps(t)`.
    """

    schedule: NoiseSchedule
    prediction: Prediction = "eps"
    variance: Variance = "learned_range"
    rescale_timesteps: bool = False

    @property
    def num_timesteps(self) -> int:
        return self.schedule.num_timesteps

    @property
    def learns_variance(self) -> bool:
        return self.variance in ("learned", "learned_range")

    # --- forwards ---------------------------------------------------------------------------------------------------

    def q_mean_variance(self, x_0: Tensor, t: Tensor) -> Gaussian:
        """q(x_t | x_0) (DDPM, arXiv:2006.11239, Eq. 4)."""
        at = self.schedule.at
        return Gaussian(
            at("sqrt_alpha_bar", t, x_0) * x_0,
            at("one_minus_alpha_bar", t, x_0),
            at("log_one_minus_alpha_bar", t, x_0),
        )

    def q_sample(self, x_0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t from x_0 and standard normal noise (DDPM, Eq. 4)."""
        at = self.schedule.at
        return at("sqrt_alpha_bar", t, x_0) * x_0 + at("sqrt_one_minus_alpha_bar", t, x_0) * noise

    def posterior(self, x_0: Tensor, x_t: Tensor, t: Tensor) -> Gaussian:
        """q(x_{t-1} | x_t, x_0) (DDPM, Eqs. 6 and 7)."""
        at = self.schedule.at
        return Gaussian(
            at("posterior_mean_x_0", t, x_t) * x_0 + at("posterior_mean_x_t", t, x_t) * x_t,
            at("posterior_variance", t, x_t),
            at("posterior_log_variance", t, x_t),
        )

    # --- one and the same prediction, in its three forms ------------------------------------------------------------

    def x_0_from_eps(self, x_t: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """Solve x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps for x_0."""
        at = self.schedule.at
        return at("sqrt_recip_alpha_bar", t, x_t) * x_t - at("sqrt_recipm1_alpha_bar", t, x_t) * eps

    def eps_from_x_0(self, x_t: Tensor, t: Tensor, x_0: Tensor) -> Tensor:
        """Solve the same equation for eps."""
        at = self.schedule.at
        return (at("sqrt_recip_alpha_bar", t, x_t) * x_t - x_0) / at("sqrt_recipm1_alpha_bar", t, x_t)

    def x_0_from_x_prev(self, x_t: Tensor, t: Tensor, x_prev: Tensor) -> Tensor:
        """The x_0 whose posterior mean is x_prev."""
        at = self.schedule.at
        return (x_prev - at("posterior_mean_x_t", t, x_t) * x_t) / at("posterior_mean_x_0", t, x_t)

    # --- backwards --------------------------------------------------------------------------------------------------

    def network_timesteps(self, t: Tensor) -> Tensor:
        """What the network is told at the indices t: its own training timesteps, (N,); times 1000 / T if rescaled."""
        told = torch.from_numpy(self.schedule.timesteps).to(t.device)[t]
        return rescale(told, self.schedule.num_train_timesteps) if self.rescale_timesteps else told

    def call(self, model: Model, x_t: Tensor, t: Tensor, conditioning: Conditioning = UNCONDITIONAL) -> Tensor:
        """The network's output at index t, checked for its number of channels.

        Raises:
            ConfigError: the output does not have C channels, or 2C where the variance is learned.
        """
        output = model(x_t, self.network_timesteps(t), **conditioning)
        expected = (len(x_t), x_t.shape[1] * (1 + self.learns_variance), *x_t.shape[2:])
        if output.shape != expected:
            raise ConfigError(
                f"variance={self.variance!r}: the network returned {tuple(output.shape)} for {tuple(x_t.shape)}, "
                f"but {expected} is needed"
            )
        return output

    def predict(
        self,
        model: Model,
        x_t: Tensor,
        t: Tensor,
        clip_denoised: bool = True,
        denoised_fn: Callable[[Tensor], Tensor] | None = None,
        conditioning: Conditioning = UNCONDITIONAL,
    ) -> Denoised:
        """p(x_{t-1} | x_t) according to the model.

        Args:
            model: see `Model`.
            x_t: (N, C, ...).
            t: (N,) indices.
            clip_denoised: clip the predicted x_0 to [-1, 1].
            denoised_fn: applied to the predicted x_0 before clipping.
            conditioning: keyword arguments for the model.

        Raises:
            ConfigError: the model's output has another number of channels than the variance asks for.
        """
        return self.read(self.call(model, x_t, t, conditioning), x_t, t, clip_denoised, denoised_fn)

    def read(
        self,
        output: Tensor,
        x_t: Tensor,
        t: Tensor,
        clip_denoised: bool = True,
        denoised_fn: Callable[[Tensor], Tensor] | None = None,
    ) -> Denoised:
        """What a network's output says: `predict` without the call."""
        value, variance, log_variance = self._split(output, x_t, t)
        match self.prediction:
            case "eps":
                x_0 = self.x_0_from_eps(x_t, t, value)
            case "x_0":
                x_0 = value
            case "x_prev":
                x_0 = self.x_0_from_x_prev(x_t, t, value)
        if denoised_fn is not None:
            x_0 = denoised_fn(x_0)
        if clip_denoised:
            x_0 = x_0.clamp(-1, 1)
        mean = value if self.prediction == "x_prev" else self.posterior(x_0, x_t, t).mean
        return Denoised(mean, variance, log_variance, x_0)

    def _split(self, output: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(prediction, variance, log variance), each (N, C, ...)."""
        at = self.schedule.at
        match self.variance:
            case "fixed_small":
                value = output
                variance, log_variance = at("posterior_variance", t, x_t), at("posterior_log_variance", t, x_t)
            case "fixed_large":
                value = output
                variance, log_variance = at("large_variance", t, x_t), at("log_large_variance", t, x_t)
            case "learned":
                value, log_variance = output.chunk(2, dim=1)
                variance = log_variance.exp()
            case "learned_range":
                # Improved DDPM (arXiv:2102.09672), Eq. 15, with v in [-1, 1] instead of [0, 1]
                value, v = output.chunk(2, dim=1)
                low, high = at("posterior_log_variance", t, x_t), at("log_betas", t, x_t)
                fraction = (v + 1) / 2
                log_variance = fraction * high + (1 - fraction) * low
                variance = log_variance.exp()
        return value, variance.expand_as(value), log_variance.expand_as(value)
