"""The settings of sampling, as dataclasses. Imports no torch."""

import math
from dataclasses import dataclass
from typing import Literal

from rediffuse.diffusion.config import EVEN, MOST_TIMESTEPS, check_guidance_scale, respacing
from rediffuse.diffusion.samplers import SAMPLERS, get_sampler
from rediffuse.errors import ConfigError
from rediffuse.images.config import Crop
from rediffuse.models.config import Precision, Preset
from rediffuse.records import added_field, require_range

Progressive = Literal["strip", "gif"]
"""The picture of the intermediate steps of an image: next to each other in a strip, or as an animation."""


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """The settings on which a sample depends, besides model, guidance, seed and class."""

    sampler: str = "ddim"
    """ddpm (arXiv:2006.11239), ddim (arXiv:2010.02502), dpm_solver (DPM-Solver++ 2M, arXiv:2211.01095), heun
    (arXiv:2206.00364), or one that was registered (`diffusion.samplers.SAMPLERS`)."""
    steps: int = 50
    """Length of the timestep grid. The even grid of DDIM has one integer stride that must give `steps` (`ddimN`)."""
    spacing: str = EVEN
    """Spacing of the timesteps: even, karras (arXiv:2206.00364, Eq. 5), or a list, `timesteps:0,50,400` or
    `sigmas:0.02,0.5,40`."""
    eta: float = 0.0
    """DDIM's share of noise: 0 is deterministic, 1 has DDPM's variance."""
    clip: bool = True
    """Clip the predicted x_0 to [-1, 1] in every step; of a latent model only the decoded image."""
    frequency: str = "trained"
    """The filter of the skip connections: a preset of `models.config.Preset`."""
    prompt: str = added_field("")
    """The text, for a model with prompts."""
    guidance_scale: float = added_field(1.0)
    """Scale of classifier-free guidance (arXiv:2207.12598) by the prompt or the class; 1 is without it."""
    precision: Precision = added_field("fp32")
    """Of the convolutions and the attention of the network; everything else is float32."""

    def __post_init__(self) -> None:
        sampler = get_sampler("sampler", self.sampler)
        Preset.parse(self.frequency)
        require_range("steps", self.steps, 1, MOST_TIMESTEPS)
        assert self.respacing  # raises an error for a wrong spacing
        check_guidance_scale(self.guidance_scale)
        if not 0 <= self.eta <= 1:
            raise ConfigError(f"eta={self.eta}: from 0 to 1 is allowed")
        if self.eta and sampler.draws != "eta":
            takes = ", ".join(name for name, known in SAMPLERS.items() if known.draws == "eta")
            raise ConfigError(f"eta={self.eta}: sampler={self.sampler} has no eta; only {takes} has")

    @property
    def respacing(self) -> str:
        """The timesteps of the chain, as an argument of `ProcessConfig.build`."""
        even = f"ddim{self.steps}" if self.sampler == "ddim" else str(self.steps)
        return respacing(self.spacing, self.steps, even)


@dataclass(frozen=True, kw_only=True)
class SampleRecord:
    """The settings of all samples in one folder."""

    model_sha256: str
    settings: SamplingSettings
    classifier_sha256: str | None = None
    """SHA-256 of the guiding classifier; None without guidance."""
    scale: float | None = None
    """Scale of the guidance."""

    def __post_init__(self) -> None:
        assert (self.classifier_sha256 is None) == (self.scale is None)
        if self.scale is not None and not 0 <= self.scale < math.inf:
            raise ConfigError(f"scale={self.scale}: 0 or more is needed")


@dataclass(frozen=True, kw_only=True)
class UpscaleRecord:
    """The settings of all enlarged images in one folder."""

    model_sha256: str
    settings: SamplingSettings
    small_size: int
    """Side of the images before they are enlarged, in pixels."""
    crop: Crop
    """How images of another size are cropped to this size."""
    seed: int
    """Base of the random seeds; the seed of an image also depends on its pixels."""
    label: int | None = None
    """The class of all images; None for an unconditional model."""


@dataclass(frozen=True)
class Request:
    """A sample to make."""

    seed: int
    label: int | None = None
    """The class of the sample; None without classes."""

    @property
    def name(self) -> str:
        """Name of the file, without the suffix; the class is first, as in the training files of guided-diffusion."""
        return f"{self.seed:06d}" if self.label is None else f"{self.label:03d}_{self.seed:06d}"
