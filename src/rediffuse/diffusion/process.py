"""The Gaussian diffusion process: q (adding noise), p (removing noise), and the meaning of a network's output."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor

from rediffuse.diffusion.config import Prediction, Variance
from rediffuse.diffusion.noise import Noise
from rediffuse.diffusion.schedule import Index, NoiseSchedule
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
    """p(x_{t-1} | x_t), and the predicted x_0; each tensor is (N, C, ...)."""

    mean: Tensor
    variance: Tensor
    log_variance: Tensor
    x_0: Tensor


@dataclass(frozen=True, kw_only=True)
class SamplerOptions:
    """The options of a sampler beside its path."""

    clip_denoised: bool = True
    """Clip the predicted x_0 to [-1, 1]."""
    denoised_fn: Callable[[Tensor], Tensor] | None = None
    """A function that is applied to the predicted x_0 before clipping."""
    guidance: Callable[..., Tensor] | None = None
    """(x_t, timesteps, **conditioning) -> gradient of log p(y | x_t) to x_t, (N, C, ...)."""
    conditioning: Conditioning = field(default_factory=dict)
    """Keyword arguments for the model and for `guidance`: `y`, `low_res`."""
    eta: float = 0.0
    """Share of noise, for samplers with this option: 0 is deterministic, 1 has the variance of DDPM."""
    noise: Noise | None = None
    """The source of noise of a sampler that draws noise."""


DEFAULT_OPTIONS = SamplerOptions()
"""The defaults: clipped, unguided, unconditional, deterministic."""


@dataclass(frozen=True, kw_only=True)
class GaussianDiffusion:
    """A diffusion process: a noise schedule, and the distributions q and p on it.

    In all methods x_0, x_t and noise are (N, C, ...). t holds indices of the schedule, where 0 has the least noise:
    (N,) int64, or one int for all samples, which needs no operation on the device. The network is given
    `network_timesteps`.
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

    # --- q: adding noise --------------------------------------------------------------------------------------------

    def q_mean_variance(self, x_0: Tensor, t: Index) -> Gaussian:
        """q(x_t | x_0) (DDPM, arXiv:2006.11239, Eq. 4)."""
        at = self.schedule.at
        return Gaussian(
            at("sqrt_alpha_bar", t, x_0) * x_0,
            at("one_minus_alpha_bar", t, x_0),
            at("log_one_minus_alpha_bar", t, x_0),
        )

    def q_sample(self, x_0: Tensor, t: Index, noise: Tensor) -> Tensor:
        """x_t from x_0 and standard normal noise (DDPM, Eq. 4)."""
        at = self.schedule.at
        return at("sqrt_alpha_bar", t, x_0) * x_0 + at("sqrt_one_minus_alpha_bar", t, x_0) * noise

    def posterior(self, x_0: Tensor, x_t: Tensor, t: Index) -> Gaussian:
        """q(x_{t-1} | x_t, x_0) (DDPM, Eqs. 6 and 7)."""
        at = self.schedule.at
        return Gaussian(
            at("posterior_mean_x_0", t, x_t) * x_0 + at("posterior_mean_x_t", t, x_t) * x_t,
            at("posterior_variance", t, x_t),
            at("posterior_log_variance", t, x_t),
        )

    # --- conversion between predictions of eps, x_0, x_prev, v and flow ---------------------------------------------

    def x_0_from_eps(self, x_t: Tensor, t: Index, eps: Tensor) -> Tensor:
        """Solve x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps for x_0."""
        at = self.schedule.at
        return at("sqrt_recip_alpha_bar", t, x_t) * x_t - at("sqrt_recipm1_alpha_bar", t, x_t) * eps

    def eps_from_x_0(self, x_t: Tensor, t: Index, x_0: Tensor) -> Tensor:
        """Solve x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps for eps."""
        at = self.schedule.at
        return (x_t - at("sqrt_alpha_bar", t, x_t) * x_0) / at("sqrt_one_minus_alpha_bar", t, x_t)

    def x_0_from_x_prev(self, x_t: Tensor, t: Index, x_prev: Tensor) -> Tensor:
        """The x_0 for which the posterior mean is x_prev."""
        at = self.schedule.at
        return (x_prev - at("posterior_mean_x_t", t, x_t) * x_t) / at("posterior_mean_x_0", t, x_t)

    def v_from_x_0(self, x_0: Tensor, t: Index, eps: Tensor) -> Tensor:
        """v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x_0 (arXiv:2202.00512, Sec. 4)."""
        at = self.schedule.at
        return at("sqrt_alpha_bar", t, x_0) * eps - at("sqrt_one_minus_alpha_bar", t, x_0) * x_0

    def x_0_from_v(self, x_t: Tensor, t: Index, v: Tensor) -> Tensor:
        """The x_0 of x_t and v; unlike that of x_t and eps it is known also where alpha_bar is 0."""
        at = self.schedule.at
        return at("sqrt_alpha_bar", t, x_t) * x_t - at("sqrt_one_minus_alpha_bar", t, x_t) * v

    def x_0_from_flow(self, x_t: Tensor, t: Index, flow: Tensor) -> Tensor:
        """The x_0 of x_t and eps - x_0; known also where alpha_bar is 0."""
        signal, noise = (self.schedule.at(name, t, x_t) for name in ("sqrt_alpha_bar", "sqrt_one_minus_alpha_bar"))
        return (x_t - noise * flow) / (signal + noise)

    # --- p: removing noise ------------------------------------------------------------------------------------------

    def network_timesteps(self, t: Index, x_t: Tensor) -> Tensor:
        """The network's timesteps at the indices t: those of its training, (N,), times 1000 / T if rescaled."""
        return self.schedule.network_timesteps(t, x_t, rescaled=self.rescale_timesteps)

    def call(self, model: Model, x_t: Tensor, t: Index, conditioning: Conditioning = UNCONDITIONAL) -> Tensor:
        """The network's output at index t, after a check of its number of channels.

        Raises:
            ConfigError: the output does not have C channels, or 2C if the variance is learned.
        """
        output = model(x_t, self.network_timesteps(t, x_t), **conditioning)
        expected = (len(x_t), x_t.shape[1] * (1 + self.learns_variance), *x_t.shape[2:])
        if output.shape != expected:
            raise ConfigError(
                f"variance={self.variance!r}: the network returned {tuple(output.shape)} for {tuple(x_t.shape)}, "
                f"but {expected} is needed"
            )
        return output

    def predict(self, model: Model, x_t: Tensor, t: Index, options: SamplerOptions = DEFAULT_OPTIONS) -> Denoised:
        """p(x_{t-1} | x_t) according to the model, without guidance.

        Args:
            model: see `Model`.
            x_t: (N, C, ...).
            t: indices.
            options: `clip_denoised`, `denoised_fn` and `conditioning` are used.

        Raises:
            ConfigError: the model's output has a wrong number of channels for this variance.
        """
        return self.denoised(self.call(model, x_t, t, options.conditioning), x_t, t, options)

    def predict_x_0(self, model: Model, x_t: Tensor, t: Index, options: SamplerOptions = DEFAULT_OPTIONS) -> Tensor:
        """Only the x_0 (N, C, ...) of `predict`; arguments and errors are the same."""
        return self._x_0(self._value(self.call(model, x_t, t, options.conditioning)), x_t, t, options)

    def denoised(self, output: Tensor, x_t: Tensor, t: Index, options: SamplerOptions = DEFAULT_OPTIONS) -> Denoised:
        """As `predict`, given the network's prediction (N, C or 2C, ...)."""
        value = self._value(output)
        x_0 = self._x_0(value, x_t, t, options)
        mean = value if self.prediction == "x_prev" else self.posterior(x_0, x_t, t).mean
        variance, log_variance = self._variances(output, x_t, t)
        return Denoised(mean, variance.expand_as(value), log_variance.expand_as(value), x_0)

    def _value(self, output: Tensor) -> Tensor:
        """The part of the output that predicts eps, x_0, x_prev, v or flow, (N, C, ...)."""
        return output.chunk(2, dim=1)[0] if self.learns_variance else output

    def _x_0(self, value: Tensor, x_t: Tensor, t: Index, options: SamplerOptions) -> Tensor:
        match self.prediction:
            case "eps":
                x_0 = self.x_0_from_eps(x_t, t, value)
            case "x_0":
                x_0 = value
            case "x_prev":
                x_0 = self.x_0_from_x_prev(x_t, t, value)
            case "v":
                x_0 = self.x_0_from_v(x_t, t, value)
            case "flow":
                x_0 = self.x_0_from_flow(x_t, t, value)
        if options.denoised_fn is not None:
            x_0 = options.denoised_fn(x_0)
        return x_0.clamp(-1, 1) if options.clip_denoised else x_0

    def _variances(self, output: Tensor, x_t: Tensor, t: Index) -> tuple[Tensor, Tensor]:
        """Variance and log variance of p; each broadcasts against (N, C, ...)."""
        at = self.schedule.at
        match self.variance:
            case "fixed_small":
                return at("posterior_variance", t, x_t), at("posterior_log_variance", t, x_t)
            case "fixed_large":
                return at("large_variance", t, x_t), at("log_large_variance", t, x_t)
            case "learned":
                log_variance = output.chunk(2, dim=1)[1]
            case "learned_range":
                # Improved DDPM (arXiv:2102.09672), Eq. 15, with v in [-1, 1] instead of [0, 1]
                low, high = at("posterior_log_variance", t, x_t), at("log_betas", t, x_t)
                fraction = (output.chunk(2, dim=1)[1] + 1) / 2
                log_variance = fraction * high + (1 - fraction) * low
        return log_variance.exp(), log_variance
