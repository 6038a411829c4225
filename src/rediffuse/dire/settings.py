"""How an image was reconstructed: the settings travel with every map, feature and detector."""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Self

from rediffuse.diffusion.config import EVEN, respacing
from rediffuse.diffusion.samplers import get_sampler
from rediffuse.errors import ConfigError, SettingsMismatch
from rediffuse.images.config import Crop
from rediffuse.models.config import Preset
from rediffuse.records import added_field

if TYPE_CHECKING:
    from rediffuse.zoo.model import DiffusionModel

Grid = Literal["compat", "aligned"]
Precision = Literal["fp32", "fp16", "bf16"]
Kind = Literal["maps", "reconstructions", "latents"]
"""What a job keeps of a reconstruction."""
MapFormat = Literal["png16", "safetensors"]
"""How maps are kept: in 16 bits, off by at most 1/65535, or exactly."""


@dataclass(frozen=True, kw_only=True)
class DireSettings:
    """Everything that a reconstruction error depends on, besides the image."""

    image_size: int
    """Side of the square that the network sees, in pixels."""
    model_sha256: str
    """SHA-256 of the weights."""
    solver: str = "ddim"
    """A sampler that draws no noise: it inverts the image and reconstructs it."""
    steps: int = 20
    """Length of the timestep grid; an even one has to divide the training chain into equal strides (`ddimN`)."""
    spacing: str = added_field(EVEN)
    """Where the timesteps of the grid lie: see `SamplingSettings.spacing`."""
    depth: int | None = None
    """How many steps of the grid are walked before turning back (the original's `real_step`); None is all of them."""
    clip: bool = True
    """Clip the predicted x_0 to [-1, 1] in every step."""
    precision: Precision = "fp32"
    grid: Grid = "compat"
    """`compat`: the original's inversion grid, shifted by one step; for the solver ddim alone. `aligned`: the mirror of
    the sampling grid."""
    crop: Crop = "center"
    """`center`: shrink the shorter side to `image_size` and cut the middle. `squash`: shrink both sides."""
    frequency: str = "trained"
    """What is done to the skip connections, there and back: a preset of `models.config.Preset`."""
    second_view: bool = False
    """Also reconstruct the image without its middle frequencies (`bands.without_middle`): twice the network calls."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"steps={self.steps}: at least 1 is needed")
        if self.depth is not None and not 1 <= self.depth <= self.steps:
            raise ConfigError(f"depth={self.depth}: from 1 to steps={self.steps} are allowed")
        if self.image_size < 1:
            raise ConfigError(f"image_size={self.image_size}: at least 1 is needed")
        Preset.parse(self.frequency)
        get_sampler("solver", self.solver, inverts=True)
        assert self.respacing  # a spacing that is none is refused here
        if self.grid == "compat" and self.solver != "ddim":
            raise ConfigError(f"grid=compat: is the grid of solver=ddim; solver={self.solver} needs grid=aligned")

    @classmethod
    def for_model(cls, model: "DiffusionModel", **fields: Any) -> Self:
        """The settings of a reconstruction with `model`.

        Args:
            model: gives `image_size` and `model_sha256`.
            fields: the other fields, by their names; each has a default.

        Raises:
            ConfigError: the model is not one of RGB images, a value is not allowed, or no integer stride gives `steps`
                timesteps of the model's chain.
        """
        model.require_rgb_unet("reconstruct images")
        settings = cls(image_size=model.image_size, model_sha256=model.provenance.sha256, **fields)
        model.process(settings.respacing)  # a grid that cannot be built fails here, not in the middle of a job
        return settings

    @property
    def respacing(self) -> str:
        """The grid as `ProcessConfig.build` reads it."""
        return respacing(self.spacing, self.steps, f"ddim{self.steps}")


def require_same(*, given: DireSettings, expected: DireSettings, owner: str) -> None:
    """Accept settings that are equal in every field.

    Args:
        owner: whose settings `expected` are, for the error ("the detector", a folder).

    Raises:
        SettingsMismatch: names every field that differs, with both values.
    """
    differing = [
        f"{field.name}={getattr(given, field.name)} (there {getattr(expected, field.name)})"
        for field in fields(given)
        if getattr(given, field.name) != getattr(expected, field.name)
    ]
    if differing:
        raise SettingsMismatch(f"{owner} has other settings: {', '.join(differing)}")
