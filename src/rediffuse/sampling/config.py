"""How images are sampled, as data that needs no torch."""

import math
from dataclasses import dataclass
from typing import Literal

from rediffuse.diffusion.config import EVEN, respacing
from rediffuse.diffusion.samplers import SAMPLERS, get_sampler
from rediffuse.errors import ConfigError
from rediffuse.images.config import Crop
from rediffuse.models.config import Preset

Progressive = Literal["strip", "gif"]
"""How the way from noise to an image is shown: its moments side by side, or one after another."""


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """What an image depends on, besides the model, its guidance, its seed and its class."""

    sampler: str = "ddim"
    """ddpm (arXiv:2006.11239), ddim (arXiv:2010.02502), dpm_solver (DPM-Solver++ 2M, arXiv:2211.01095), heun
    (arXiv:2206.00364), or one that was registered (`diffusion.samplers.SAMPLERS`)."""
    steps: int = 50
    """Length of the timestep grid. DDIM's even grid has one stride, so `steps` has to divide the chain (`ddimN`)."""
    spacing: str = EVEN
    """Where the timesteps of the grid lie: even, karras (arXiv:2206.00364, Eq. 5), or listed, `timesteps:0,50,400` or
    `sigmas:0.02,0.5,40`."""
    eta: float = 0.0
    """DDIM's share of noise: 0 is deterministic, 1 has DDPM's variance."""
    clip: bool = True
    """Clip the predicted x_0 to [-1, 1] in every step."""
    frequency: str = "trained"
    """What is done to the skip connections: a preset of `models.config.Preset`."""

    def __post_init__(self) -> None:
        sampler = get_sampler("sampler", self.sampler)
        Preset.parse(self.frequency)
        if self.steps < 1:
            raise ConfigError(f"steps={self.steps}: at least 1 is needed")
        assert self.respacing  # a spacing that is none is refused here
        if not 0 <= self.eta <= 1:
            raise ConfigError(f"eta={self.eta}: from 0 to 1 is allowed")
        if self.eta and sampler.draws != "eta":
            takes = ", ".join(name for name, known in SAMPLERS.items() if known.draws == "eta")
            raise ConfigError(f"eta={self.eta}: sampler={self.sampler} has none; {takes} has")

    @property
    def respacing(self) -> str:
        """Which timesteps of the chain are used, as `ProcessConfig.build` reads it."""
        even = f"ddim{self.steps}" if self.sampler == "ddim" else str(self.steps)
        return respacing(self.spacing, self.steps, even)


@dataclass(frozen=True, kw_only=True)
class SampleRecord:
    """Everything that all samples of one folder have in common."""

    model_sha256: str
    settings: SamplingSettings
    classifier_sha256: str | None = None
    """Of the classifier that guides, if any."""
    scale: float | None = None
    """How strongly it does."""

    def __post_init__(self) -> None:
        assert (self.classifier_sha256 is None) == (self.scale is None)
        if self.scale is not None and not 0 <= self.scale < math.inf:
            raise ConfigError(f"scale={self.scale}: 0 or more is needed")


@dataclass(frozen=True, kw_only=True)
class UpscaleRecord:
    """Everything that all enlarged images of one folder have in common."""

    model_sha256: str
    settings: SamplingSettings
    small_size: int
    """Side of the images before they are enlarged, in pixels."""
    crop: Crop
    """How images of another size become such squares."""
    seed: int
    """Of the noise, together with an image's pixels."""
    label: int | None = None
    """The class that all images were given, if any."""


@dataclass(frozen=True)
class Request:
    """One sample that is wanted."""

    seed: int
    label: int | None = None
    """Its class, if it has one."""

    @property
    def name(self) -> str:
        """Of its file, without the suffix; the class comes first, as in the files that guided-diffusion trains on."""
        return f"{self.seed:06d}" if self.label is None else f"{self.label:03d}_{self.seed:06d}"
