"""The diffusion process of a scheduler of diffusers."""

import hashlib
import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from rediffuse.diffusion.config import Prediction, Variance
from rediffuse.diffusion.process import GaussianDiffusion
from rediffuse.diffusion.schedule import NoiseSchedule
from rediffuse.errors import ConfigError, nearest
from rediffuse.stores import one_line

SCHEDULERS = (
    "DDIMScheduler",
    "DDIMInverseScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
)
"""The schedulers of variance-preserving processes. They differ in their sampler; a process is their betas, prediction
and timesteps, which `DDIMScheduler.from_config` reads from the configuration of each of them."""

FLOW = "FlowMatchEulerDiscreteScheduler"

_PREDICTIONS: Mapping[str, Prediction] = {"epsilon": "eps", "sample": "x_0", "v_prediction": "v"}
_VARIANCES: Mapping[str, Variance] = {
    "fixed_small": "fixed_small",
    "fixed_small_log": "fixed_small",
    "fixed_large": "fixed_large",
    "fixed_large_log": "fixed_large",
    "learned": "learned",
    "learned_range": "learned_range",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class SchedulerProcess:
    """The process on which the network of a pipeline was trained; has the methods of `ProcessConfig`."""

    scheduler: str
    """The scheduler's class in diffusers."""
    prediction: Prediction
    variance: Variance
    config: Mapping[str, Any]
    """The scheduler's configuration."""
    shift: float | None = None
    """The shift of the levels of a flow by the size of x_t (mu of arXiv:2403.03206, Sec. 5.3.2, as diffusers computes
    it), if the scheduler has `use_dynamic_shifting`."""
    has_levels: bool = False
    """See `families.Family.has_levels`."""

    @property
    def learns_variance(self) -> bool:
        return self.variance in ("learned", "learned_range")

    @property
    def is_flow(self) -> bool:
        """Whether the network was trained on the flow from images to noise along straight lines (arXiv:2210.02747)."""
        return self.scheduler == FLOW

    @property
    def noise(self) -> str:
        """The properties on which the x_t and timesteps of a network depend."""
        return f"{self.scheduler} {dict(self.config)}"

    @property
    def sha256(self) -> str:
        """SHA-256 of all that a reconstruction depends on."""
        chosen = [self.config.get(name) for name in ("timestep_spacing", "steps_offset")]
        content = hashlib.sha256(f"{self.prediction} {self.variance} {chosen}".encode())
        content.update(self.build().schedule.alpha_bar.astype(np.float32).tobytes())
        return content.hexdigest()

    def build(self, respacing: str = "") -> GaussianDiffusion:
        """The process on all timesteps, or on those of `respacing`.

        `"ddim20"` and `"20"` are the 20 timesteps that the scheduler itself chooses (`timestep_spacing`,
        `steps_offset`); for other values see `NoiseSchedule.respace`.

        Raises:
            ConfigError: the scheduler has fewer timesteps, or `respacing` has another form.
        """
        return _build(self, respacing)


def library(name: str) -> Any:
    """The module `diffusers` or `transformers`, which are imported only here.

    Raises ConfigError if it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ConfigError(f"{name} is not installed; pipelines need it: pip install 'rediffuse[diffusers]'") from None


def process_of(
    scheduler: Any, *, has_variance: bool, num_tokens: int = 0, has_levels: bool = False
) -> SchedulerProcess:
    """The process of a scheduler.

    Args:
        scheduler: a scheduler of diffusers.
        has_variance: whether the network's output has channels of a variance.
        num_tokens: the length of the network's sequence, on which the shift of a flow may depend.
        has_levels: see `families.Family.has_levels`.

    Raises:
        ConfigError: the class of the scheduler, or its kind of prediction, is not known.
    """
    name, config = type(scheduler).__name__, scheduler.config
    known = (*SCHEDULERS, FLOW)
    if name not in known:
        raise ConfigError(f"{name}: not a known scheduler; {', '.join(known)} are known{nearest(name, known)}")
    kept = {key: value for key, value in config.items() if not key.startswith("_")}
    if name == FLOW:
        return _flow_of(kept, num_tokens, has_levels)
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in _PREDICTIONS:
        raise ConfigError(f"{name}: prediction_type={prediction}; {', '.join(_PREDICTIONS)} are known")
    if prediction == "epsilon" and config.get("rescale_betas_zero_snr"):
        raise ConfigError(
            f"{name}: rescale_betas_zero_snr with prediction_type=epsilon: eps of pure noise gives no x_0"
        )
    variance = _VARIANCES.get(config.get("variance_type") or "", "fixed_small")
    if not has_variance and variance in ("learned", "learned_range"):
        raise ConfigError(f"{name}: variance_type={variance}, but the network has no channels for it")
    process = SchedulerProcess(scheduler=name, prediction=_PREDICTIONS[prediction], variance=variance, config=kept)
    try:
        process.build()
    except NotImplementedError as error:
        raise ConfigError(f"{name}: beta_schedule={config.get('beta_schedule')}: {error}") from None
    return process


@lru_cache(maxsize=64)  # as for `ProcessConfig`
def _build(process: SchedulerProcess, respacing: str) -> GaussianDiffusion:
    steps = re.fullmatch(r"(?:ddim)?(\d+)", respacing)
    num_steps = int(steps[1]) if steps else None
    chain = _flow_chain(process, num_steps) if process.is_flow else _chain(process.config, num_steps)
    if respacing and not steps:
        chain = chain.respace(respacing)
    return GaussianDiffusion(schedule=chain, prediction=process.prediction, variance=process.variance)


def _chain(config: Mapping[str, Any], steps: int | None) -> NoiseSchedule:
    """All timesteps, or those that the scheduler chooses for this number of steps."""
    scheduler = library("diffusers").DDIMScheduler.from_config(dict(config))
    alpha_bar = scheduler.alphas_cumprod.double().numpy()
    chain = NoiseSchedule.from_betas(1 - alpha_bar / np.append(1.0, alpha_bar[:-1]))
    if steps is None:
        return chain
    _set_steps(scheduler, steps)
    return chain.keep(scheduler.timesteps.tolist())


def _flow_chain(process: SchedulerProcess, steps: int | None) -> NoiseSchedule:
    """The levels s of a flow as those of the equal variance-preserving process (`networks.PipelineNetwork.forward`)."""
    scheduler = library("diffusers").FlowMatchEulerDiscreteScheduler.from_config(dict(process.config))
    if process.shift is not None:
        steps = steps or scheduler.config.num_train_timesteps  # a new scheduler has levels without their shift
    if steps is not None:
        levels = np.linspace(1, 1 / steps, steps) if process.has_levels else None
        _set_steps(scheduler, steps, sigmas=levels, mu=process.shift)
    timesteps = scheduler.timesteps.double().numpy()[::-1].copy()
    s = timesteps / scheduler.config.num_train_timesteps
    alpha_bar = (1 - s) ** 2 / ((1 - s) ** 2 + s**2)
    return NoiseSchedule(
        betas=1 - alpha_bar / np.append(1.0, alpha_bar[:-1]),
        timesteps=timesteps,
        num_train_timesteps=scheduler.config.num_train_timesteps,
    )


def _flow_of(config: Mapping[str, Any], num_tokens: int, has_levels: bool) -> SchedulerProcess:
    for option in ("invert_sigmas", "stochastic_sampling"):
        if config.get(option):
            raise ConfigError(f"{FLOW}: {option} is not known")
    shift = None
    if config.get("use_dynamic_shifting"):
        # A line through two points: the shift at the shortest and the longest sequence of the training.
        short, long = config["base_image_seq_len"], config["max_image_seq_len"]
        if short == long:
            raise ConfigError(f"{FLOW}: base_image_seq_len and max_image_seq_len are both {short}; they must differ")
        slope = (config["max_shift"] - config["base_shift"]) / (long - short)
        shift = config["base_shift"] + slope * (num_tokens - short)
    return SchedulerProcess(
        scheduler=FLOW, prediction="flow", variance="fixed_small", config=config, shift=shift, has_levels=has_levels
    )


def _set_steps(scheduler: Any, steps: int, **options: Any) -> None:
    num_timesteps = scheduler.config.num_train_timesteps
    if not 1 <= steps <= num_timesteps:
        raise ConfigError(f"steps={steps}: from 1 to {num_timesteps}, the timesteps of the scheduler, are allowed")
    try:
        scheduler.set_timesteps(steps, **options)
    except ValueError as error:  # another spacing of timesteps
        spacing = scheduler.config.get("timestep_spacing")
        raise ConfigError(f"timestep_spacing={spacing}, steps={steps}: {one_line(error)}") from None
