"""The inputs of detectors: functions of a reconstruction, by name, each with its control.

The control of an input is computed in the same way from the image alone. If a detector on reconstructions is not better
than the detector on its control, the diffusion model adds nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rediffuse.detection.config import FeatureName, InputName, MapName
from rediffuse.dire.bands import band_maps, band_profile, log_band_energies
from rediffuse.dire.reconstruct import Reconstruction
from rediffuse.models.frequency import NUM_BANDS, highest

YCC = ((0.299, 0.587, 0.114), (-0.1687, -0.3313, 0.5), (0.5, -0.4187, -0.0813))
"""The matrix from R, G, B to luma and the two colour differences of JFIF."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and deviation of the photographs that published ResNet-50s were trained on, in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One number of an image."""

    name: str
    """A name for people, such as "error in band 3 (0.25-0.35 cycles/px)"."""
    band: int | None
    """The band of the number, counted from 0; None for a number of all bands together."""


@dataclass(frozen=True, kw_only=True)
class FeatureSet:
    """F numbers of an image, for a logistic regression."""

    name: FeatureName
    features: tuple[Feature, ...]
    compute: Callable[[Reconstruction], Tensor]
    """The function from a reconstruction to features (N, F) float32."""
    control: FeatureName
    needs_second_view: bool = False
    """Whether it needs reconstructions with a second view (`DireSettings.second_view`)."""

    @property
    def familiar(self) -> FeatureName:
        """The features of the distance to the training images: the same ones."""
        return self.name

    def measure(self, reconstruction: Reconstruction) -> np.ndarray:
        """(N, F) float64; except for rounding the features of an image do not depend on the rest of the batch."""
        values = self.compute(reconstruction).double().cpu().numpy()
        assert values.shape == (len(reconstruction), len(self.features))
        return values


@dataclass(frozen=True, kw_only=True)
class MapInput:
    """C channels of size (S, S), for a ResNet-50."""

    name: MapName
    num_channels: int
    compute: Callable[[Tensor, Tensor], Tensor]
    """From x_0 and the signed error D, (N, 3, S, S) each, to (N, C, S, S) with values in [0, 1]."""
    control: MapName
    familiar: FeatureName
    """The features of the distance to the training images."""
    needs_second_view: bool = False

    def measure(self, reconstruction: Reconstruction) -> np.ndarray:
        """(N, C, S, S) float32."""
        return self.maps(reconstruction.x_0, reconstruction.error).cpu().numpy()

    def maps(self, x_0: Tensor, error: Tensor) -> Tensor:
        """(N, C, S, S) float32; every three channels are normalised as by the original DIRE's detector."""
        values = self.compute(x_0, error)
        copies = self.num_channels // 3
        mean, std = (values.new_tensor(v).repeat(copies)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
        return (values - mean) / std


def band_range(band: int, num_bands: int = NUM_BANDS) -> tuple[float, float]:
    """The frequencies, in cycles per pixel, between which the hat function of a band is at least 1/2."""
    spacing = highest(2) / (num_bands - 1)
    return max(0.0, (band - 0.5) * spacing), min(highest(2), (band + 0.5) * spacing)


def _per_band(what: str) -> tuple[Feature, ...]:
    ranges = (band_range(band) for band in range(NUM_BANDS))
    return tuple(
        Feature(name=f"{what} in band {band} ({low:.2f}-{high:.2f} cycles/px)", band=band)
        for band, (low, high) in enumerate(ranges)
    )


def _bands(reconstruction: Reconstruction) -> Tensor:
    profile = band_profile(reconstruction.x_0, reconstruction.x_0_hat)
    return torch.cat([profile.energies, profile.coherences], dim=1)  # (N, 2K)


def _bands_mean(reconstruction: Reconstruction) -> Tensor:
    mean_error = reconstruction.error.abs().mean(dim=(1, 2, 3))
    return torch.cat([_bands(reconstruction), torch.log(mean_error + 1e-6)[:, None]], dim=1)  # (N, 2K + 1)


def _bands_ycc(reconstruction: Reconstruction) -> Tensor:
    pairs = zip(_ycc_planes(reconstruction.x_0), _ycc_planes(reconstruction.x_0_hat), strict=True)
    profiles = [band_profile(plane, returned) for plane, returned in pairs]
    return torch.cat([values for p in profiles for values in (p.energies, p.coherences)], dim=1)  # (N, 6K)


def _views(reconstruction: Reconstruction) -> Tensor:
    assert reconstruction.second is not None
    second = band_profile(reconstruction.x_0, reconstruction.second)
    return torch.cat([_bands(reconstruction), second.energies, second.coherences], dim=1)  # (N, 4K)


def _image(reconstruction: Reconstruction) -> Tensor:
    return log_band_energies(reconstruction.x_0)  # (N, K)


def _image_ycc(reconstruction: Reconstruction) -> Tensor:
    return torch.cat([log_band_energies(plane) for plane in _ycc_planes(reconstruction.x_0)], dim=1)  # (N, 3K)


def _bands_image(reconstruction: Reconstruction) -> Tensor:
    return torch.cat([_bands(reconstruction), _image(reconstruction)], dim=1)  # (N, 3K)


def _ycc_planes(images: Tensor) -> tuple[Tensor, ...]:
    """(N, 3, H, W) in R, G, B to three planes (N, 1, H, W)."""
    return torch.einsum("yc,nchw->nyhw", images.new_tensor(YCC), images).split(1, dim=1)


def _error_map(x_0: Tensor, error: Tensor) -> Tensor:
    return error.abs().clamp(max=2) / 2  # (N, 3, S, S)


def _error_map_bands(x_0: Tensor, error: Tensor) -> Tensor:
    maps = band_maps(error)  # (N, K, 3, S, S)
    thirds = maps.tensor_split(3, dim=1)  # low, middle and high bands
    return torch.cat([_error_map(x_0, part) for part in (error, *(third.sum(dim=1) for third in thirds))], dim=1)


def _pixels(x_0: Tensor, error: Tensor) -> Tensor:
    return (x_0 + 1) / 2  # (N, 3, S, S)


_ERRORS, _COHERENCES, _SPECTRUM = _per_band("error"), _per_band("coherence"), _per_band("energy")
_SECOND = _per_band("second error") + _per_band("second coherence")
_MEAN = (Feature(name="mean error", band=None),)
_YCC_NAMES = ("luma", "blue difference", "red difference")

_FEATURE_SETS = (
    FeatureSet(name="bands", features=_ERRORS + _COHERENCES, compute=_bands, control="image"),
    FeatureSet(name="bands_mean", features=_ERRORS + _COHERENCES + _MEAN, compute=_bands_mean, control="image"),
    FeatureSet(
        name="bands_ycc",
        features=sum((_per_band(f"{y} {what}") for y in _YCC_NAMES for what in ("error", "coherence")), ()),
        compute=_bands_ycc,
        control="image_ycc",
    ),
    FeatureSet(name="bands_image", features=_ERRORS + _COHERENCES + _SPECTRUM, compute=_bands_image, control="image"),
    FeatureSet(
        name="views",
        features=_ERRORS + _COHERENCES + _SECOND,
        compute=_views,
        control="image",
        needs_second_view=True,
    ),
    FeatureSet(name="image", features=_SPECTRUM, compute=_image, control="image"),
    FeatureSet(
        name="image_ycc",
        features=sum((_per_band(f"{y} energy") for y in _YCC_NAMES), ()),
        compute=_image_ycc,
        control="image_ycc",
    ),
)
_MAP_INPUTS = (
    MapInput(name="map", num_channels=3, compute=_error_map, control="pixels", familiar="bands"),
    MapInput(name="map_bands", num_channels=12, compute=_error_map_bands, control="pixels", familiar="bands"),
    MapInput(name="pixels", num_channels=3, compute=_pixels, control="pixels", familiar="image"),
)

FEATURES: dict[FeatureName, FeatureSet] = {feature_set.name: feature_set for feature_set in _FEATURE_SETS}
INPUTS: dict[InputName, FeatureSet | MapInput] = {one.name: one for one in (*_FEATURE_SETS, *_MAP_INPUTS)}
