"""The two classifiers of reconstructions. Their logit is positive for `generated`; each gives contributions by band."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from rediffuse.detection.features import FeatureSet, MapInput, pooled
from rediffuse.detection.resnet import ResNet50
from rediffuse.dire.bands import band_maps
from rediffuse.dire.reconstruct import Reconstruction
from rediffuse.models.frequency import NUM_BANDS


class Scorer(Protocol):
    """The interface of a detector's classifier."""

    @property
    def input(self) -> FeatureSet | MapInput: ...

    def logits(self, reconstruction: Reconstruction) -> np.ndarray:
        """Logits (N,) float64, before calibration."""
        ...

    def logits_of(self, inputs: np.ndarray) -> np.ndarray:
        """The same, from the result of `input.measure`."""
        ...

    def contributions(self, reconstruction: Reconstruction) -> np.ndarray:
        """(N, K) float64: the contribution of each band to the logit."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """The tensors to save."""
        ...


@dataclass(frozen=True, kw_only=True)
class BandScorer:
    """A linear function of standardised features: logit = sum_j weight_j (feature_j - mean_j) / scale_j + offset."""

    input: FeatureSet
    mean: np.ndarray
    scale: np.ndarray
    weight: np.ndarray
    """(F,) float64, as are mean and scale."""
    offset: float

    def logits(self, reconstruction: Reconstruction) -> np.ndarray:
        return self.logits_of(self.input.measure(reconstruction))

    def logits_of(self, inputs: np.ndarray) -> np.ndarray:
        return self._terms(inputs).sum(axis=1) + self.offset

    def contributions(self, reconstruction: Reconstruction) -> np.ndarray:
        """The terms of the sum, added up by band; 0 for a band whose features equal the training mean."""
        terms = self._terms(self.input.measure(reconstruction))
        bands = np.array([feature.band for feature in self.input.features])
        return terms @ (bands[:, None] == np.arange(NUM_BANDS))  # (N, F) by (F, K)

    def window_contributions(self, reconstruction: Reconstruction) -> np.ndarray:
        """(N,) float64: by how much the logit falls without a window; of a single window the logit itself."""
        windows, logit = self.input.rows(reconstruction), self.logits(reconstruction)
        if len(windows) == 1:
            return logit
        others = np.nonzero(~np.eye(len(windows), dtype=bool))[1].reshape(len(windows), -1)  # (N, N - 1)
        return logit - self.logits_of(pooled(windows[others]))

    def tensors(self) -> dict[str, Tensor]:
        arrays = {"mean": self.mean, "scale": self.scale, "weight": self.weight, "offset": np.array([self.offset])}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def _terms(self, features: np.ndarray) -> np.ndarray:
        return self.weight * (features - self.mean) / self.scale  # (N, F)


@dataclass(frozen=True, kw_only=True)
class MapScorer:
    """A ResNet-50, in eval mode, on a map of the error."""

    input: MapInput
    network: ResNet50

    def logits(self, reconstruction: Reconstruction) -> np.ndarray:
        return self.logits_of(self.input.measure(reconstruction))

    def logits_of(self, inputs: np.ndarray) -> np.ndarray:
        device = self.network.fc.weight.device
        with torch.inference_mode():
            parts = [self.network(part.to(device)) for part in torch.from_numpy(inputs).split(64)]  # (<= 64, 1) each
        return torch.cat(parts)[:, 0].double().cpu().numpy()

    def contributions(self, reconstruction: Reconstruction) -> np.ndarray:
        """The decrease of the logit when the band is removed from the signed error: K + 1 maps of each image."""
        x_0, error = reconstruction.x_0, reconstruction.error
        without = error[:, None] - band_maps(error)  # (N, K, 3, S, S)
        errors = torch.cat([error[:, None], without], dim=1)  # (N, 1 + K, 3, S, S)
        x_0 = x_0[:, None].expand_as(errors)
        maps = self.input.maps(x_0.flatten(0, 1), errors.flatten(0, 1)).cpu().numpy()
        logits = self.logits_of(maps).reshape(len(error), 1 + NUM_BANDS)
        return logits[:, :1] - logits[:, 1:]

    def tensors(self) -> dict[str, Tensor]:
        return {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
