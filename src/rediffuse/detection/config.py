"""The names of the possible inputs of a detector. Imports no torch."""

from typing import Literal

FeatureName = Literal["bands", "bands_mean", "bands_ycc", "bands_image", "views", "image", "image_ycc"]
"""Inputs of the logistic regression: numbers per image (`features.FeatureSet`)."""
MapName = Literal["map", "map_8bit", "map_bands", "pixels"]
"""Inputs of the ResNet-50: maps (`features.MapInput`)."""
InputName = Literal[FeatureName, MapName]
