"""The names of the possible inputs of a detector, and the limits of its errors. Imports no torch."""

from dataclasses import dataclass
from typing import Literal

from rediffuse.errors import ConfigError

FeatureName = Literal[
    "bands", "bands_mean", "bands_ycc", "bands_image", "views", "lpips", "map_energies", "image", "image_ycc"
]
"""Inputs of the logistic regression: numbers per image (`features.FeatureSet`)."""
MapName = Literal["map", "map_8bit", "map_bands", "pixels"]
"""Inputs of the ResNet-50: maps (`features.MapInput`)."""
InputName = Literal[FeatureName, MapName]
OF_MAPS: tuple[InputName, ...] = ("map", "map_8bit", "map_energies")
"""The inputs that can be computed from an image and its map, without the sign of the error."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The error rates that the thresholds of a detector are chosen for."""

    max_false_alarms: float = 0.05
    """Largest share of photographs that may be called generated; a threshold follows from it."""
    max_misses: float = 0.05
    """Largest share of generated images that may be called real; the other threshold follows from it."""
    unfamiliar_rate: float = 0.05
    """Share of images that may count as unlike those that the detector was made from."""

    def __post_init__(self) -> None:
        for name, limit in vars(self).items():
            if not 0 < limit < 0.5:
                raise ConfigError(f"{name}={limit}: more than 0 and less than 0.5 is allowed")


FIVE_PERCENT = Limits()
