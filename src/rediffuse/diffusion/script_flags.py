"""A process configuration from the flags of guided-diffusion's scripts."""

from dataclasses import dataclass

from rediffuse.diffusion.config import ProcessConfig, ScheduleName, Variance


@dataclass(frozen=True, kw_only=True)
class ProcessFlags:
    """The scripts' flags for a process, with their names and defaults."""

    diffusion_steps: int = 1000
    noise_schedule: ScheduleName = "linear"
    learn_sigma: bool = False
    sigma_small: bool = False
    predict_xstart: bool = False
    rescale_timesteps: bool = False


def process_config(flags: ProcessFlags) -> ProcessConfig:
    """The process of these flags; a learned variance is always between the two fixed ones."""
    fixed: Variance = "fixed_small" if flags.sigma_small else "fixed_large"
    return ProcessConfig(
        schedule=flags.noise_schedule,
        num_timesteps=flags.diffusion_steps,
        prediction="x_0" if flags.predict_xstart else "eps",
        variance="learned_range" if flags.learn_sigma else fixed,
        rescale_timesteps=flags.rescale_timesteps,
    )
