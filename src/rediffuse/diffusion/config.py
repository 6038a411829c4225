"""The configuration of a diffusion process, as a dataclass. Imports no torch."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from rediffuse.errors import ConfigError
from rediffuse.records import require_range

if TYPE_CHECKING:
    from rediffuse.diffusion.process import GaussianDiffusion

EVEN = "even"
MOST_TIMESTEPS = 100_000
"""The longest chain; published models have 1,000 to 4,000 timesteps."""
SPACINGS = "even, karras, timesteps:T,T,... or sigmas:S,S,..."
ScheduleName = Literal["linear", "cosine"]
Prediction = Literal["eps", "x_0", "x_prev", "v", "flow"]
Variance = Literal["fixed_small", "fixed_large", "learned", "learned_range"]


def respacing(spacing: str, steps: int, even: str) -> str:
    """The argument of `ProcessConfig.build` for the grid of a sampler.

    Args:
        spacing: `"even"`; `"karras"` (arXiv:2206.00364, Eq. 5); or the grid itself, `"timesteps:0,50,400"` or
            `"sigmas:0.02,0.5,40"`.
        steps: length of the grid.
        even: the result for even spacing.

    Raises:
        ConfigError: the spacing is unknown, or it lists another number of levels than `steps`.
    """
    if spacing == EVEN:
        return even
    if spacing == "karras":
        return f"karras{steps}"
    kind, _, values = spacing.partition(":")
    if kind not in ("timesteps", "sigmas"):
        raise ConfigError(f"spacing={spacing}: {SPACINGS} are allowed")
    count = values.count(",") + 1
    if count != steps:
        raise ConfigError(f"spacing={spacing}: has {count} levels, and steps={steps}; give steps={count}")
    return spacing


def check_guidance_scale(scale: float) -> None:
    """Raise ConfigError for a scale of classifier-free guidance that is not allowed."""
    if not 0 <= scale < math.inf:
        raise ConfigError(f"guidance_scale={scale}: 0 or more is needed")


@dataclass(frozen=True, kw_only=True)
class ProcessConfig:
    """The diffusion process on which a network was trained."""

    schedule: ScheduleName = "linear"
    """The noise schedule: how the noise increases with t."""
    num_timesteps: int = 1000
    """T, the number of timesteps in training."""
    prediction: Prediction = "eps"
    """What the network predicts; v is sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x_0 (arXiv:2202.00512), flow is
    eps - x_0 (arXiv:2209.03003)."""
    variance: Variance = "learned_range"
    """The variance of p(x_{t-1} | x_t): fixed or learned. If learned, the network has twice the output channels."""
    rescale_timesteps: bool = False
    """Give the network t * 1000 / T instead of t."""

    def __post_init__(self) -> None:
        require_range("num_timesteps", self.num_timesteps, 1, MOST_TIMESTEPS)

    @property
    def learns_variance(self) -> bool:
        return self.variance in ("learned", "learned_range")

    @property
    def noise(self) -> str:
        """The properties on which the x_t and timesteps of a network depend."""
        rescaled = " (rescaled)" if self.rescale_timesteps and self.num_timesteps != 1000 else ""
        return f"{self.schedule} over {self.num_timesteps}{rescaled}"

    def build(self, respacing: str = "") -> "GaussianDiffusion":
        """The process on all T timesteps, or on those of `respacing` (see `NoiseSchedule.respace`)."""
        return _build(self, respacing)


@lru_cache(maxsize=64)  # called for every batch; the process keeps its tables on the device
def _build(config: ProcessConfig, respacing: str) -> "GaussianDiffusion":
    from rediffuse.diffusion.process import GaussianDiffusion
    from rediffuse.diffusion.schedule import NoiseSchedule

    schedule = NoiseSchedule.named(config.schedule, config.num_timesteps)
    return GaussianDiffusion(
        schedule=schedule.respace(respacing) if respacing else schedule,
        prediction=config.prediction,
        variance=config.variance,
        rescale_timesteps=config.rescale_timesteps,
    )
