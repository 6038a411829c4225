"""What a detector can look at, by name: data that needs no torch."""

from typing import Literal

FeatureName = Literal["bands", "bands_mean", "bands_ycc", "bands_image", "views", "image", "image_ycc"]
"""Numbers per image, for the logistic regression (`features.FeatureSet`)."""
MapName = Literal["map", "map_bands", "pixels"]
"""Images, for the ResNet-50 (`features.MapInput`)."""
InputName = FeatureName | MapName
