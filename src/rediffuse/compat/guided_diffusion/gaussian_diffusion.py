"""guided-diffusion's process with its old names, and the loops that DIRE added; `rediffuse.diffusion` computes.

Noise is drawn with `torch.randn_like` and `torch.randn`, in the same order and number as in the original, so a program
that seeds torch gets the same numbers. The functions are looked up at every draw, so a program may replace them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from rediffuse.diffusion import guidance
from rediffuse.diffusion.config import Prediction, Variance
from rediffuse.diffusion.likelihood import bits_per_dimension, prior_bits, variational_term
from rediffuse.diffusion.losses import LossType as LossName
from rediffuse.diffusion.losses import training_losses
from rediffuse.diffusion.process import Denoised, SamplerOptions
from rediffuse.diffusion.process import GaussianDiffusion as Process
from rediffuse.diffusion.schedule import NoiseSchedule
from rediffuse.diffusion.solvers.ddim import ddim_sigma, ddim_update
from rediffuse.diffusion.solvers.ddpm import ddpm_update
from rediffuse.errors import ConfigError

Kwargs = Mapping[str, Any] | None
Output = dict[str, Tensor]
Function = Callable[..., Tensor]


def get_named_beta_schedule(schedule_name: str, num_diffusion_timesteps: int) -> np.ndarray:
    """(T,) float64: the betas of `linear` or `cosine`. Raises ConfigError for another name."""
    return NoiseSchedule.named(schedule_name, num_diffusion_timesteps).betas


def betas_for_alpha_bar(
    num_diffusion_timesteps: int, alpha_bar: Callable[[float], float], max_beta: float = 0.999
) -> np.ndarray:
    """(T,) float64: the betas, at most `max_beta`, whose products follow `alpha_bar`, a function on [0, 1]."""
    return NoiseSchedule.from_alpha_bar(alpha_bar, num_diffusion_timesteps, max_beta).betas


class ModelMeanType(Enum):
    """What the network predicts; the values are the names in rediffuse."""

    PREVIOUS_X = "x_prev"
    START_X = "x_0"
    EPSILON = "eps"


class ModelVarType(Enum):
    """The kind of variance of p(x_{t-1} | x_t); the values are the names in rediffuse."""

    LEARNED = "learned"
    FIXED_SMALL = "fixed_small"
    FIXED_LARGE = "fixed_large"
    LEARNED_RANGE = "learned_range"


class LossType(Enum):
    """The kind of loss of `training_losses`; the values are the names in rediffuse."""

    MSE = "mse"
    RESCALED_MSE = "rescaled_mse"
    KL = "kl"
    RESCALED_KL = "rescaled_kl"

    def is_vb(self) -> bool:
        """Whether the loss is the variational bound."""
        return self in (LossType.KL, LossType.RESCALED_KL)


class GaussianDiffusion:
    """The process of a complete chain; `respace.SpacedDiffusion` can skip timesteps.

    The sampling methods call each other as in the original: a loop calls its step, a step calls `p_mean_variance`,
    `condition_mean` or `condition_score`, and these call `_wrap_model` and `_scale_timesteps`. So subclasses may
    override any of them. `training_losses` and `calc_bpd_loop` call only the last two.

    In all methods x, x_start, x_t and noise are (N, C, ...), t is (N,) int64 and counts from 0, the least noise;
    a model is called as model(x, timesteps, **model_kwargs), and cond_fn in the same way. Steps return a dict of
    `sample` and `pred_xstart`. `real_step` is DIRE's: the number of steps, counted from the image; 0 (or more than
    there are) means all.
    """

    def __init__(
        self,
        *,
        betas: Sequence[float] | np.ndarray,
        model_mean_type: ModelMeanType,
        model_var_type: ModelVarType,
        loss_type: LossType,
        rescale_timesteps: bool = False,
    ) -> None:
        """Raises ConfigError if a beta is outside (0, 1]."""
        self.model_mean_type = model_mean_type
        self.model_var_type = model_var_type
        self.loss_type = loss_type
        self.rescale_timesteps = rescale_timesteps
        schedule = NoiseSchedule.from_betas(betas)
        # Here the timestep is the index: `_wrap_model` and `_scale_timesteps` convert it for the network.
        self._process = Process(
            schedule=schedule,
            prediction=cast(Prediction, model_mean_type.value),
            variance=cast(Variance, model_var_type.value),
        )
        self.num_timesteps = schedule.num_timesteps
        self.betas = schedule.betas
        self.alphas_cumprod = schedule.alpha_bar
        self.alphas_cumprod_prev = schedule.alpha_bar_prev
        self.alphas_cumprod_next = schedule.alpha_bar_next
        self.sqrt_alphas_cumprod = schedule.sqrt_alpha_bar
        self.sqrt_one_minus_alphas_cumprod = schedule.sqrt_one_minus_alpha_bar
        self.log_one_minus_alphas_cumprod = schedule.log_one_minus_alpha_bar
        self.sqrt_recip_alphas_cumprod = schedule.sqrt_recip_alpha_bar
        self.sqrt_recipm1_alphas_cumprod = schedule.sqrt_recipm1_alpha_bar
        self.posterior_variance = schedule.posterior_variance
        self.posterior_log_variance_clipped = schedule.posterior_log_variance
        self.posterior_mean_coef1 = schedule.posterior_mean_x_0
        self.posterior_mean_coef2 = schedule.posterior_mean_x_t

    # --- the network's timesteps ------------------------------------------------------------------------------------

    def _wrap_model(self, model: Function) -> Function:
        return model

    def _scale_timesteps(self, t: Tensor) -> Tensor:
        return replace(self._process, rescale_timesteps=self.rescale_timesteps).network_timesteps(t, t)

    def _at_network_timesteps(self, function: Function) -> Function:
        """Wrap a model or cond_fn so that it is called with indices, and gets the timesteps of its training."""
        wrapped = self._wrap_model(function)
        return lambda x, t, **kwargs: wrapped(x, self._scale_timesteps(t), **kwargs)

    # --- forwards ---------------------------------------------------------------------------------------------------

    def q_mean_variance(self, x_start: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, variance and log variance of q(x_t | x_0), each (N, C, ...)."""
        mean, variance, log_variance = self._process.q_mean_variance(x_start, t)
        return mean, variance.expand_as(mean), log_variance.expand_as(mean)

    def q_sample(self, x_start: Tensor, t: Tensor, noise: Tensor | None = None) -> Tensor:
        """x_t from x_0; noise is drawn if none is given."""
        return self._process.q_sample(x_start, t, torch.randn_like(x_start) if noise is None else noise)

    def q_posterior_mean_variance(self, x_start: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, variance and log variance of q(x_{t-1} | x_t, x_0), each (N, C, ...); log 0 at t = 0 is replaced."""
        mean, variance, log_variance = self._process.posterior(x_start, x_t, t)
        return mean, variance.expand_as(mean), log_variance.expand_as(mean)

    # --- one step backwards -----------------------------------------------------------------------------------------

    def p_mean_variance(
        self,
        model: Function,
        x: Tensor,
        t: Tensor,
        clip_denoised: bool = True,
        denoised_fn: Function | None = None,
        model_kwargs: Kwargs = None,
    ) -> Output:
        """p(x_{t-1} | x_t) as a dict of `mean`, `variance`, `log_variance` and `pred_xstart`, each (N, C, ...)."""
        options = SamplerOptions(clip_denoised=clip_denoised, denoised_fn=denoised_fn, conditioning=model_kwargs or {})
        p = self._process.predict(self._at_network_timesteps(model), x, t, options)
        return {"mean": p.mean, "variance": p.variance, "log_variance": p.log_variance, "pred_xstart": p.x_0}

    def condition_mean(
        self, cond_fn: Function, p_mean_var: Output, x: Tensor, t: Tensor, model_kwargs: Kwargs = None
    ) -> Tensor:
        """The mean of `p_mean_var`, shifted by cond_fn, the gradient of log p(y | x_t)."""
        p = _denoised(p_mean_var)
        return guidance.condition_mean(
            self._process, self._at_network_timesteps(cond_fn), p, x, t, model_kwargs or {}
        ).mean

    def condition_score(
        self, cond_fn: Function, p_mean_var: Output, x: Tensor, t: Tensor, model_kwargs: Kwargs = None
    ) -> Output:
        """`p_mean_var` with the mean and the pred_xstart that follow where cond_fn moves the score."""
        x_0 = guidance.condition_score(
            self._process, self._at_network_timesteps(cond_fn), p_mean_var["pred_xstart"], x, t, model_kwargs or {}
        )
        return p_mean_var | {"mean": self._process.posterior(x_0, x, t).mean, "pred_xstart": x_0}

    def p_sample(
        self,
        model: Function,
        x: Tensor,
        t: Tensor,
        clip_denoised: bool = True,
        denoised_fn: Function | None = None,
        cond_fn: Function | None = None,
        model_kwargs: Kwargs = None,
    ) -> Output:
        """One step of DDPM, from x_t to x_{t-1}."""
        out = self.p_mean_variance(
            model, x, t, clip_denoised=clip_denoised, denoised_fn=denoised_fn, model_kwargs=model_kwargs
        )
        noise = torch.randn_like(x)
        if cond_fn is not None:
            out["mean"] = self.condition_mean(cond_fn, out, x, t, model_kwargs=model_kwargs)
        return _output(ddpm_update(_denoised(out), t, noise), out)

    def ddim_sample(
        self,
        model: Function,
        x: Tensor,
        t: Tensor,
        clip_denoised: bool = True,
        denoised_fn: Function | None = None,
        cond_fn: Function | None = None,
        model_kwargs: Kwargs = None,
        eta: float = 0.0,
    ) -> Output:
        """One step of DDIM, from x_t to x_{t-1}."""
        out = self.p_mean_variance(
            model, x, t, clip_denoised=clip_denoised, denoised_fn=denoised_fn, model_kwargs=model_kwargs
        )
        if cond_fn is not None:
            out = self.condition_score(cond_fn, out, x, t, model_kwargs=model_kwargs)
        noise = torch.randn_like(x)  # drawn also at eta = 0, as in the original, because later draws depend on it
        at = self._process.schedule.at
        eps = self._process.eps_from_x_0(x, t, out["pred_xstart"])
        alpha_bar_prev = at("alpha_bar_prev", t, x)
        sigma = ddim_sigma(eta, at("alpha_bar", t, x), alpha_bar_prev)
        return _output(ddim_update(out["pred_xstart"], eps, alpha_bar_prev, sigma, noise), out)

    def ddim_reverse_sample(
        self,
        model: Function,
        x: Tensor,
        t: Tensor,
        clip_denoised: bool = True,
        denoised_fn: Function | None = None,
        model_kwargs: Kwargs = None,
        eta: float = 0.0,
    ) -> Output:
        """One step of DDIM backwards, from x_t to x_{t+1}. Raises ConfigError unless eta is 0."""
        if eta != 0:
            raise ConfigError(f"eta={eta}: inversion needs eta=0")
        out = self.p_mean_variance(
            model, x, t, clip_denoised=clip_denoised, denoised_fn=denoised_fn, model_kwargs=model_kwargs
        )
        eps = self._process.eps_from_x_0(x, t, out["pred_xstart"])
        return _output(ddim_update(out["pred_xstart"], eps, self._process.schedule.at("alpha_bar_next", t, x)), out)

    # --- all steps --------------------------------------------------------------------------------------------------

    def p_sample_loop(
        self,
        model: Function,
        shape: Sequence[int],
        noise: Tensor | None = None,
        clip_denoised: bool = True,
        denoised_fn: Function | None = None,
        cond_fn: Function | None = None,
        model_kwargs: Kwargs = None,
        device: torch.device | str | None = None,
        progress: bool = False,
        real_step: int = 0,
    ) -> Tensor:
        """Samples (N, C, ...) by DDPM.

        shape: (N, C, ...) of the noise to draw where `noise` (x_T) is not given. device: where to; the model's own by
        default. progress: show a bar.
        """
        return _last(
            self.p_sample_loop_progressive(
                model, shape, noise, clip_denoised, denoised_fn, cond_fn, model_kwargs, device, progress, real_step
            )
        )["sample"]

    def p_sample_loop_progressive(
        self,
        model: Function,
        shape: Sequence[int],
        noise: Tensor | None = None,
        clip_denoised: bool = True,
        denoised_fn: Function | None = None,
        cond_fn: Function | None = None,
        model_kwargs: Kwargs = None,
        device: torch.device | str | None = None,
        progress: bool = False,
        real_step: int = 0,
    ) -> Iterator[Output]:
        """As `p_sample_loop`, one step's dict after the other; the next step starts from its `sample`."""

        def step(x: Tensor, t: Tensor) -> Output:
            return self.p_sample(
                model,
                x,
                t,
                clip_denoised=clip_denoised,
                denoised_fn=denoised_fn,
                cond_fn=cond_fn,
                model_kwargs=model_kwargs,
            )

        yield from _walk(step, _start(model, shape, noise, device), self._indices(real_step)[::-1], progress)

    def ddim_sample_loop(
        self,
        model: Function,
        shape: Sequence[int],
        noise: Tensor | None = None,
        clip_denoised: bool = True,
        denoised_fn: Function | None = None,
        cond_fn: Function | None = None,
        model_kwargs: Kwargs = None,
        device: torch.device | str | None = None,
        progress: bool = False,
        eta: float = 0.0,
        return_intermediate: bool = False,
        real_step: int = 0,
    ) -> Tensor | list[Tensor]:
        """Samples (N, C, ...) by DDIM; arguments as in `p_sample_loop`.

        return_intermediate: a list of the steps' samples instead, of every (T // 100)th where T is 200 or more.
        """
        steps = self.ddim_sample_loop_progressive(
            model, shape, noise, clip_denoised, denoised_fn, cond_fn, model_kwargs, device, progress, eta, real_step
        )
        if not return_intermediate:
            return _last(steps)["sample"]
        interval = max(1, self.num_timesteps // 100)
        return [out["sample"] for number, out in enumerate(steps, start=1) if number % interval == 0]

    def ddim_sample_loop_progressive(
        self,
        model: Function,
        shape: Sequence[int],
        noise: Tensor | None = None,
        clip_denoised: bool = True,
        denoised_fn: Function | None = None,
        cond_fn: Function | None = None,
        model_kwargs: Kwargs = None,
        device: torch.device | str | None = None,
        progress: bool = False,
        eta: float = 0.0,
        real_step: int = 0,
    ) -> Iterator[Output]:
        """As `ddim_sample_loop`, one step's dict after the other; the next step starts from its `sample`."""

        def step(x: Tensor, t: Tensor) -> Output:
            return self.ddim_sample(
                model,
                x,
                t,
                clip_denoised=clip_denoised,
                denoised_fn=denoised_fn,
                cond_fn=cond_fn,
                model_kwargs=model_kwargs,
                eta=eta,
            )

        yield from _walk(step, _start(model, shape, noise, device), self._indices(real_step)[::-1], progress)

    def ddim_reverse_sample_loop(
        self,
        model: Function,
        shape: Sequence[int],
        noise: Tensor | None = None,
        clip_denoised: bool = True,
        denoised_fn: Function | None = None,
        cond_fn: Function | None = None,
        model_kwargs: Kwargs = None,
        device: torch.device | str | None = None,
        progress: bool = False,
        eta: float = 0.0,
        real_step: int = 0,
    ) -> Tensor:
        """x_T (N, C, ...) by DDIM inversion of the images in `noise`. As in DIRE, cond_fn is not used."""
        return _last(
            self.ddim_reverse_sample_loop_progressive(
                model, shape, noise, clip_denoised, denoised_fn, cond_fn, model_kwargs, device, progress, eta, real_step
            )
        )["sample"]

    def ddim_reverse_sample_loop_progressive(
        self,
        model: Function,
        shape: Sequence[int],
        noise: Tensor | None = None,
        clip_denoised: bool = True,
        denoised_fn: Function | None = None,
        cond_fn: Function | None = None,
        model_kwargs: Kwargs = None,
        device: torch.device | str | None = None,
        progress: bool = False,
        eta: float = 0.0,
        real_step: int = 0,
    ) -> Iterator[Output]:
        """As `ddim_reverse_sample_loop`, one step's dict after the other; the next step starts from its `sample`."""

        def step(x: Tensor, t: Tensor) -> Output:
            return self.ddim_reverse_sample(
                model,
                x,
                t,
                clip_denoised=clip_denoised,
                denoised_fn=denoised_fn,
                model_kwargs=model_kwargs,
                eta=eta,
            )

        yield from _walk(step, _start(model, shape, noise, device), self._indices(real_step), progress)

    def _indices(self, real_step: int) -> range:
        """The indices that a loop visits, ascending."""
        if real_step < 0:
            raise ConfigError(f"real_step={real_step}: 0, for all steps, or more is allowed")
        return range(min(real_step or self.num_timesteps, self.num_timesteps))

    # --- losses -----------------------------------------------------------------------------------------------------

    def training_losses(
        self, model: Function, x_start: Tensor, t: Tensor, model_kwargs: Kwargs = None, noise: Tensor | None = None
    ) -> Output:
        """The `loss` (N,) of the process's loss type, and the terms `mse` and `vb` where it has them."""
        noise = torch.randn_like(x_start) if noise is None else noise
        loss_type = cast(LossName, self.loss_type.value)
        return training_losses(
            self._process, self._at_network_timesteps(model), x_start, t, noise, loss_type, model_kwargs or {}
        )

    def calc_bpd_loop(
        self, model: Function, x_start: Tensor, clip_denoised: bool = True, model_kwargs: Kwargs = None
    ) -> Output:
        """The bound in bits per dimension: `total_bpd`, `prior_bpd` (N,), `vb`, `xstart_mse`, `mse` (N, T)."""
        bits = bits_per_dimension(
            self._process,
            self._at_network_timesteps(model),
            x_start,
            lambda x: torch.randn_like(x),  # looked up at every draw
            clip_denoised=clip_denoised,
            conditioning=model_kwargs or {},
        )
        return {
            "total_bpd": bits.total,
            "prior_bpd": bits.prior,
            "vb": bits.vb,
            "xstart_mse": bits.x_0_mse,
            "mse": bits.eps_mse,
        }

    def _vb_terms_bpd(
        self,
        model: Function,
        x_start: Tensor,
        x_t: Tensor,
        t: Tensor,
        clip_denoised: bool = True,
        model_kwargs: Kwargs = None,
    ) -> Output:
        """One term of the bound: `output` (N,) in bits per dimension, and `pred_xstart`."""
        out = self.p_mean_variance(model, x_t, t, clip_denoised=clip_denoised, model_kwargs=model_kwargs)
        output = variational_term(self._process, _denoised(out), x_start, x_t, t)
        return {"output": output, "pred_xstart": out["pred_xstart"]}

    def _prior_bpd(self, x_start: Tensor) -> Tensor:
        return prior_bits(self._process, x_start)

    # --- conversion between predictions of eps, x_0 and x_prev ------------------------------------------------------

    def _predict_xstart_from_eps(self, x_t: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        return self._process.x_0_from_eps(x_t, t, eps)

    def _predict_xstart_from_xprev(self, x_t: Tensor, t: Tensor, xprev: Tensor) -> Tensor:
        return self._process.x_0_from_x_prev(x_t, t, xprev)

    def _predict_eps_from_xstart(self, x_t: Tensor, t: Tensor, pred_xstart: Tensor) -> Tensor:
        return self._process.eps_from_x_0(x_t, t, pred_xstart)


def _denoised(out: Output) -> Denoised:
    return Denoised(out["mean"], out["variance"], out["log_variance"], out["pred_xstart"])


def _output(sample: Tensor, out: Output) -> Output:
    return {"sample": sample, "pred_xstart": out["pred_xstart"]}


def _start(model: Any, shape: Sequence[int], noise: Tensor | None, device: torch.device | str | None) -> Tensor:
    """`noise` itself, or else new noise on `device`, by default the device of the model."""
    if noise is not None:
        return noise
    if device is None:
        if not isinstance(model, torch.nn.Module):
            raise ConfigError(
                "device=None: this model is not a torch module, so its device is unknown; give the device"
            )
        device = next(model.parameters()).device
    return torch.randn(*shape, device=device)


def _walk(
    step: Callable[[Tensor, Tensor], Output], x: Tensor, indices: Sequence[int], progress: bool
) -> Iterator[Output]:
    for index in tqdm(indices, disable=not progress):
        with torch.no_grad():
            out = step(x, torch.full((len(x),), index, device=x.device))
        yield out
        x = out["sample"]  # which the program may have replaced meanwhile


def _last(outputs: Iterator[Output]) -> Output:
    *_, last = outputs
    return last
