"""Flags for the settings of a reconstruction."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

from rediffuse.cli.flags import CROP
from rediffuse.dire.settings import DireSettings, Grid
from rediffuse.images.config import num_windows
from rediffuse.models.config import Precision

if TYPE_CHECKING:
    from rediffuse.zoo.model import DiffusionModel


@dataclass(frozen=True, kw_only=True)
class ReconstructionFlags:
    """Everything beside image and model on which the reconstruction error depends; the defaults are the original's."""

    steps: int = DireSettings.steps
    """Length of the timestep grid."""
    depth: int | None = None
    """Invert only so many steps of the grid before reconstructing; all of them if not given."""
    grid: Grid = DireSettings.grid
    """Timesteps of the inversion: those of the original DIRE code (compat), or those of sampling (aligned)."""
    clip: bool = DireSettings.clip
    """Clip the predicted x_0 to [-1, 1] in every step."""
    frequency: str = DireSettings.frequency
    """Filter on the model's skip connections: trained (none but its own spectral gates), off, freeu, freeu:B, sharpen
    or lowpass."""
    crop: Annotated[str, CROP] = DireSettings.crop
    """Cut out the middle square (center), squash the image into a square (squash), or cut up to N squares out of it
    without resampling (windows:N), at N times the network calls."""
    prompt: str = DireSettings.prompt
    """The text that conditions the model, for a model with prompts."""
    guidance_scale: float = DireSettings.guidance_scale
    """Scale of classifier-free guidance by the prompt or the class; 1 is without guidance."""
    solver: str = DireSettings.solver
    """The sampler that inverts and reconstructs: ddim, dpm_solver or heun; the last two need --grid aligned.
    autoencoder: only encode and decode, with the autoencoder of a latent model."""
    spacing: str = DireSettings.spacing
    """Spacing of the timesteps: even, karras, timesteps:T,T,... or sigmas:S,S,..."""

    def __post_init__(self) -> None:
        num_windows(self.crop)  # a crop that is none is refused before anything is read

    def settings(self, model: "DiffusionModel", precision: Precision) -> DireSettings:
        """The settings for a model; arguments that do not fit it are a ConfigError."""
        return DireSettings.for_model(model, precision=precision, **asdict(self))
