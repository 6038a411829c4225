"""What defines a diffusion process, as data that needs no torch."""

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from rediffuse.errors import ConfigError

if TYPE_CHECKING:
    from rediffuse.diffusion.process import GaussianDiffusion

EVEN = "even"
SPACINGS = "even, karras, timesteps:T,T,... or sigmas:S,S,..."
ScheduleName = Literal["linear", "cosine"]
Prediction = Literal["eps", "x_0", "x_prev"]
Variance = Literal["fixed_small", "fixed_large", "learned", "learned_range"]


def respacing(spacing: str, steps: int, even: str) -> str:
    """How `ProcessConfig.build` writes the grid of a sampler.

    Args:
        spacing: `"even"`; `"karras"` (arXiv:2206.00364, Eq. 5); or the grid itself, `"timesteps:0,50,400"` or
            `"sigmas:0.02,0.5,40"`.
        steps: length of the grid.
        even: the grid where the spacing is even.

    Raises:
        ConfigError: there is no such spacing, or it lists another number of levels than `steps`.
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


@dataclass(frozen=True, kw_only=True)
class ProcessConfig:
    """The diffusion process a network was trained on."""

    schedule: ScheduleName = "linear"
    """How noise grows with t."""
    num_timesteps: int = 1000
    """T, the length of the chain in training."""
    prediction: Prediction = "eps"
    """What the network's output means."""
    variance: Variance = "learned_range"
    """Where the variance of p(x_{t-1} | x_t) comes from; a learned one doubles the network's output channels."""
    rescale_timesteps: bool = False
    """Tell the network t * 1000 / T instead of t."""

    def __post_init__(self) -> None:
        if self.num_timesteps < 1:
            raise ConfigError(f"num_timesteps={self.num_timesteps}: at least 1 is needed")

    @property
    def learns_variance(self) -> bool:
        return self.variance in ("learned", "learned_range")

    def build(self, respacing: str = "") -> "GaussianDiffusion":
        """The process, on all T timesteps or on those of `respacing` (see `NoiseSchedule.respace`)."""
        return _build(self, respacing)


@lru_cache(maxsize=64)  # every batch asks again, and the process keeps its coefficients on the device
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
