"""The settings of a detector's training, as data that needs no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from rediffuse.detection.config import FIVE_PERCENT, OF_MAPS, InputName, Limits, MapName
from rediffuse.dire.settings import DireSettings, Grid
from rediffuse.errors import ConfigError
from rediffuse.images.config import num_windows
from rediffuse.images.limits import Decoding
from rediffuse.models.config import Precision
from rediffuse.training.config import LoopConfig

RESNET = LoopConfig(num_steps=2000, batch_size=32, ema_rates=())


@dataclass(frozen=True, kw_only=True)
class DetectorTraining(Decoding):
    """A search over depths and inputs, judged by the AUC on images that were left out of the fit."""

    data: Path
    """Folder with real/ and generated/, whose subfolders are groups (sources of photographs, generators) that are left
    out in turn. Or folder with train/, validation/ and test/, each with real/ and generated/. `rediffuse eval detector
    --help` lists other names and places of these folders."""
    originals: Path | None = None
    """Folder with the same groups as `data`, in real/ and generated/: files as people have them. They are left out of
    every fit; the limits hold for them and for `data`, each alone. So `data` can be a copy by `rediffuse align`."""
    changed: Path | None = None
    """Folder with the same groups again: copies with a change that those of `data` do not have, such as
    `rediffuse align --blur 0.5 2`. They are left out of every fit, and the limits hold for them alone too."""
    maps: Path | None = None
    """Folder of `rediffuse dire` on `data` with the same settings, in files or shards: its maps are read, and nothing
    is reconstructed. For the features map, map_8bit and map_energies."""
    features: tuple[InputName, ...] = ("bands",)
    """Inputs of the classifier; the best one is taken. map, map_8bit and map_bands: a ResNet-50, needs train/ and
    so on."""
    steps: int = DireSettings.steps
    """Length of the timestep grid."""
    depths: tuple[int, ...] = (5,)
    """Number of steps of the inversion; of several values the best one is taken. `steps` is full depth."""
    clip: bool = DireSettings.clip
    """Clip the predicted x_0 to [-1, 1] in every step."""
    precision: Precision = DireSettings.precision
    """Number format inside the diffusion network."""
    grid: Grid = DireSettings.grid
    """The original's inversion grid, or the one that mirrors sampling."""
    crop: str = DireSettings.crop
    """Cut the middle square (center), squash the image into one (squash), or cut up to N squares out of it without
    resampling (windows:N) and pool their features, at N times the network calls."""
    frequency: str = DireSettings.frequency
    """Filter of the model's skip connections: trained (only its own spectral gates), off, freeu, freeu:B, sharpen or
    lowpass."""
    prompt: str = DireSettings.prompt
    """The text that conditions the model, for a model with prompts."""
    guidance_scale: float = DireSettings.guidance_scale
    """Scale of classifier-free guidance by the prompt or the class; 1 is without guidance."""
    solver: str = DireSettings.solver
    """The sampler that inverts and reconstructs: ddim, dpm_solver or heun; the last two with grid=aligned.
    autoencoder: only encode and decode, with the autoencoder of a latent model."""
    spacing: str = DireSettings.spacing
    """Spacing of the timesteps: even, karras, timesteps:T,T,... or sigmas:S,S,..."""
    inverse_penalties: tuple[float, ...] = (0.001, 0.003, 0.01, 0.1, 1.0, 10.0, 100.0)
    """Candidates for the C of the logistic regression."""
    limits: Limits = FIVE_PERCENT
    """The limits of the errors on images of unseen groups."""
    resnet: LoopConfig = RESNET
    """Settings of the training of a ResNet-50."""
    resnet_weights: Path | None = None
    """Checkpoint from which a ResNet-50 starts; its last layer is used if it has one output."""
    batch_size: int = 32
    """Images, or windows of images, per call of the diffusion network."""
    workers: int = 2
    """Threads that decode ahead."""

    def __post_init__(self) -> None:
        for name in ("features", "depths", "inverse_penalties"):
            if not getattr(self, name):
                raise ConfigError(f"{name}: at least one is needed")
        maps = [name for name in self.features if name in get_args(MapName)]
        if num_windows(self.crop) is not None and maps:
            raise ConfigError(
                f"crop={self.crop}: features={maps[0]} takes one map per image; center, squash are allowed"
            )
        if self.maps is not None:
            for name in self.features:
                if name not in OF_MAPS:
                    allowed = ", ".join(OF_MAPS)
                    raise ConfigError(f"features={name}: cannot be computed from maps; {allowed} are allowed with maps")
            for name in ("originals", "changed"):
                if getattr(self, name) is not None:
                    raise ConfigError(
                        f"{name}={getattr(self, name)}: is not allowed with maps, which are those of data"
                    )
            if len(self.depths) > 1:
                raise ConfigError(f"depths={self.depths}: one is allowed with maps, which have one depth")
        if min(self.inverse_penalties) <= 0:
            raise ConfigError(f"inverse_penalties={self.inverse_penalties}: more than 0 is needed")
