"""What defines a diffusion process, as data that needs no torch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rediffuse.errors import ConfigError

if TYPE_CHECKING:
    from rediffuse.diffusion.process import GaussianDiffusion

ScheduleName = Literal["linear", "cosine"]
Prediction = Literal["eps", "x_0", "x_prev"]
Variance = Literal["fixed_small", "fixed_large", "learned", "learned_range"]


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
        """The process, on all T timesteps or on those that `respacing` keeps (`"ddim20"`, `"250"`, `"10,15,20"`)."""
        from rediffuse.diffusion.process import GaussianDiffusion
        from rediffuse.diffusion.schedule import NoiseSchedule

        schedule = NoiseSchedule.named(self.schedule, self.num_timesteps)
        return GaussianDiffusion(
            schedule=schedule.respace(respacing) if respacing else schedule,
            prediction=self.prediction,
            variance=self.variance,
            rescale_timesteps=self.rescale_timesteps,
        )
