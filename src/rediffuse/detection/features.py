"""The inputs of detectors: functions of a reconstruction, by name, each with its control.

The control of an input is computed in the same way from the image alone. If a detector on reconstructions is not better
than the detector on its control, the diffusion model adds nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from rediffuse.detection.config import FeatureName, InputName, MapName
from rediffuse.dire.bands import band_maps, band_profile, log_band_energies
from rediffuse.dire.reconstruct import Reconstruction
from rediffuse.dire.settings import DireSettings
from rediffuse.errors import ConfigError
from rediffuse.images.tensors import map_to_uint8_floor
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
    """The function from a reconstruction to features of its rows, float32: (N, F), before pooling (N, F / 2)."""
    control: FeatureName
    needs_second_view: bool = False
    """Whether it needs reconstructions with a second view (`DireSettings.second_view`)."""
    pools_windows: bool = False
    """Whether the rows of a reconstruction are the windows of one image: see `pooled`."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    @property
    def familiar(self) -> FeatureName:
        """The features of the distance to the training images: the same ones."""
        return self.name

    def measure(self, reconstruction: Reconstruction) -> np.ndarray:
        """(N, F) float64, of one image's windows (1, F).

        Except for rounding the features of an image do not depend on the rest of the batch.
        """
        values = self.rows(reconstruction)
        values = pooled(values)[None] if self.pools_windows else values
        assert values.shape[1] == len(self.features)
        return values

    def rows(self, reconstruction: Reconstruction) -> np.ndarray:
        """The features of each image, or of each window before pooling, float64."""
        values = self.compute(reconstruction).double().cpu().numpy()
        assert len(values) == len(reconstruction)
        return values


@dataclass(frozen=True, kw_only=True)
class MapInput:
    """C channels of size (H, H), for a ResNet-50."""

    name: MapName
    num_channels: int
    compute: Callable[[Tensor, Tensor], Tensor]
    """From x_0 and the signed error D, (N, 3, S, S) each, to (N, C, H, H) with values in [0, 1]."""
    control: MapName
    familiar: FeatureName
    """The features of the distance to the training images."""
    needs_second_view: bool = False

    def measure(self, reconstruction: Reconstruction) -> np.ndarray:
        """(N, C, H, H) float32."""
        return self.maps(reconstruction.x_0, reconstruction.error).cpu().numpy()

    def maps(self, x_0: Tensor, error: Tensor) -> Tensor:
        """(N, C, H, H) float32; every three channels are normalised as by the original DIRE's detector."""
        values = self.compute(x_0, error)
        copies = self.num_channels // 3
        mean, std = (values.new_tensor(v).repeat(copies)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
        return (values - mean) / std


def pooled(windows: np.ndarray) -> np.ndarray:
    """Features of N windows (..., N, F) as features of their image (..., 2F): mean, then deviation (0 where N = 1)."""
    return np.concatenate([windows.mean(axis=-2), windows.std(axis=-2)], axis=-1)


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
    profile = reconstruction.profile
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


def _lpips(reconstruction: Reconstruction) -> Tensor:
    if reconstruction.lpips is None:
        raise ConfigError("features=lpips: the model has no LPIPS; add lpips:FOLDER to the names of --model")
    return torch.log(reconstruction.lpips + 1e-6)  # (N, 5)


def _map_energies(reconstruction: Reconstruction) -> Tensor:
    maps = _error_map(reconstruction.x_0, reconstruction.error)
    return torch.cat([log_band_energies(maps), _image(reconstruction)], dim=1)  # (N, 2K)


def _image(reconstruction: Reconstruction) -> Tensor:
    return log_band_energies(reconstruction.x_0)  # (N, K)


def _image_ycc(reconstruction: Reconstruction) -> Tensor:
    return torch.cat([log_band_energies(plane) for plane in _ycc_planes(reconstruction.x_0)], dim=1)  # (N, 3K)


def _bands_image(reconstruction: Reconstruction) -> Tensor:
    return torch.cat([_bands(reconstruction), reconstruction.profile.image], dim=1)  # (N, 3K)


def _ycc_planes(images: Tensor) -> tuple[Tensor, ...]:
    """(N, 3, H, W) in R, G, B to three planes (N, 1, H, W)."""
    return torch.einsum("yc,nchw->nyhw", images.new_tensor(YCC), images).split(1, dim=1)


def _error_map(x_0: Tensor, error: Tensor) -> Tensor:
    return error.abs().clamp(max=2) / 2  # (N, 3, S, S)


def _error_map_8bit(x_0: Tensor, error: Tensor) -> Tensor:
    """The input of the original DIRE's detector: its 8-bit image of the map, of which it cuts out 224 of 256 pixels."""
    levels = torch.from_numpy(map_to_uint8_floor(error.abs())).movedim(-1, -3)  # (N, 3, S, S)
    size = levels.shape[-1] * 7 // 8
    start = (levels.shape[-1] - size) // 2
    return levels[..., start : start + size, start : start + size] / 255  # (N, 3, size, size)


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
    FeatureSet(
        name="lpips",
        features=tuple(Feature(name=f"LPIPS in layer {layer} of VGG16", band=None) for layer in range(1, 6)),
        compute=_lpips,
        control="image",
    ),
    FeatureSet(
        name="map_energies", features=_per_band("energy of the map") + _SPECTRUM, compute=_map_energies, control="image"
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
    MapInput(name="map", num_channels=3, compute=_error_map, control="pixels", familiar="map_energies"),
    MapInput(name="map_8bit", num_channels=3, compute=_error_map_8bit, control="pixels", familiar="map_energies"),
    MapInput(name="map_bands", num_channels=12, compute=_error_map_bands, control="pixels", familiar="bands"),
    MapInput(name="pixels", num_channels=3, compute=_pixels, control="pixels", familiar="image"),
)

FEATURES: dict[FeatureName, FeatureSet] = {one.name: one for one in _FEATURE_SETS}
INPUTS: dict[InputName, FeatureSet | MapInput] = {one.name: one for one in (*_FEATURE_SETS, *_MAP_INPUTS)}


def feature_set(name: FeatureName, settings: DireSettings) -> FeatureSet:
    """The features of this name for reconstructions of these settings: of whole images, or pooled over windows."""
    of_one = FEATURES[name]
    if settings.num_windows is None:
        return of_one
    features = tuple(
        Feature(name=f"{feature.name}, {pooling} over windows", band=feature.band)
        for pooling in ("mean", "deviation")
        for feature in of_one.features
    )
    return replace(of_one, features=features, pools_windows=True)


def detector_input(name: InputName, settings: DireSettings) -> FeatureSet | MapInput:
    """`feature_set`, or the map of this name.

    Raises:
        ConfigError: a map of windows; a ResNet-50 takes one map per image.
    """
    given = INPUTS[name]
    if isinstance(given, FeatureSet):
        return feature_set(given.name, settings)
    if settings.num_windows is not None:
        raise ConfigError(f"crop={settings.crop}: {name} is one map per image; center, squash are allowed")
    return given
