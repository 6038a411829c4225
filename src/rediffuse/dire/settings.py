"""How an image was reconstructed: the settings travel with every map, feature and detector."""

from dataclasses import dataclass
from typing import Literal

from rediffuse.errors import ConfigError

Grid = Literal["compat", "aligned"]
Precision = Literal["fp32", "fp16", "bf16"]
Crop = Literal["center", "squash"]


@dataclass(frozen=True, kw_only=True)
class DireSettings:
    """Everything that a reconstruction error depends on, besides the image."""

    image_size: int
    """Side of the square that the network sees, in pixels."""
    model_sha256: str
    """SHA-256 of the weights."""
    solver: Literal["ddim"] = "ddim"
    steps: int = 20
    """Length of the timestep grid; it has to divide the training chain into equal strides (`ddimN`)."""
    depth: int | None = None
    """How many steps of the grid are walked before turning back (the original's `real_step`); None is all of them."""
    clip: bool = True
    """Clip the predicted x_0 to [-1, 1] in every step."""
    precision: Precision = "fp32"
    grid: Grid = "compat"
    """`compat`: the original's inversion grid, shifted by one step. `aligned`: the mirror of the sampling grid."""
    crop: Crop = "center"
    """`center`: shrink the shorter side to `image_size` and cut the middle. `squash`: shrink both sides."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"steps={self.steps}: at least 1 is needed")
        if self.depth is not None and not 1 <= self.depth <= self.steps:
            raise ConfigError(f"depth={self.depth}: from 1 to steps={self.steps} are allowed")
        if self.image_size < 1:
            raise ConfigError(f"image_size={self.image_size}: at least 1 is needed")

    @property
    def respacing(self) -> str:
        return f"ddim{self.steps}"
