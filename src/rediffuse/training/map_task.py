"""Training a ResNet-50 to classify maps as those of real or of generated images."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from rediffuse.detection.features import MapInput
from rediffuse.detection.metrics import roc_auc
from rediffuse.detection.resnet import ResNet50, load_resnet50
from rediffuse.detection.scorers import MapScorer
from rediffuse.models.checkpoints import write_state_dict
from rediffuse.progress import Progress, unobserved
from rediffuse.training.randomness import CROP, ORDER, Place, derive
from rediffuse.training.task import Batch, Task, Terms

WEIGHTS_NAME = "resnet50.safetensors"


class MapData:
    """Maps (n, C, S, S) in memory by position in the training; both classes are equally frequent, half are mirrored.

    Position 2i is a real image and 2i + 1 a generated one; each class has its own permutations.
    """

    classes: tuple[str, ...] = ("real", "generated")
    skipped: tuple[str, ...] = ()
    """Always empty: files that could not be used have no map."""

    def __init__(self, maps: np.ndarray, labels: np.ndarray, seed: int) -> None:
        self.maps, self.seed = maps, seed
        self.skipped = ()
        self.of_class = [np.flatnonzero(labels == label) for label in (0, 1)]
        content = hashlib.sha256(labels.astype(np.uint8).tobytes())
        content.update(maps.sum(axis=(1, 2, 3), dtype=np.float64).tobytes())
        self.fingerprint = content.hexdigest()[:16]

    def write_index(self, path: Path) -> None:
        """Nothing: the maps are of no files."""

    def __len__(self) -> int:
        return len(self.maps)

    def __getitem__(self, positions: range) -> Batch:
        """`map` (N, C, S, S) and `label` (N,) float32."""
        maps = []
        for position in positions:
            rng = np.random.default_rng(derive(self.seed, CROP, position))
            one = self.maps[self._index(position)]
            maps.append(one[..., ::-1] if rng.random() < 0.5 else one)
        return {
            "map": torch.from_numpy(np.stack(maps)),
            "label": torch.tensor([float(position % 2) for position in positions]),
        }

    def _index(self, position: int) -> int:
        members = self.of_class[position % 2]
        epoch, place = divmod(position // 2, len(members))
        order = np.random.default_rng(derive(self.seed, ORDER, epoch, position % 2)).permutation(len(members))
        return int(members[order[place]])


class MapTask(Task):
    """See `task.Task`: binary cross-entropy on a ResNet-50's logit, as in DIRE's section 4.1."""

    name = "map detector"

    def __init__(
        self,
        input: MapInput,
        train: tuple[np.ndarray, np.ndarray],
        validation: tuple[np.ndarray, np.ndarray],
        seed: int,
        weights: Path | None,
    ) -> None:
        """Prepare a training.

        Args:
            input: the kind of maps.
            train: maps (n, C, S, S) and labels (n,).
            validation: maps and labels of the same shapes.
            seed: random seed of order and mirroring.
            weights: a checkpoint to start from; None starts from random weights.
        """
        self.input, self.train, self.validation, self.seed, self.weights = input, train, validation, seed, weights

    def describe(self) -> dict[str, Any]:
        return {"input": self.input.name, "weights": None if self.weights is None else self.weights.name}

    def build(self) -> ResNet50:
        num_channels = self.input.num_channels
        if self.weights is None:
            return ResNet50(in_channels=num_channels)
        network = load_resnet50(self.weights, num_channels)
        if network.fc.out_features != 1:
            network.fc = nn.Linear(network.fc.in_features, 1)
        return network

    def data(self, progress: Progress = unobserved, index: Path | None = None) -> MapData:
        return MapData(*self.train, self.seed)

    def draw(self, batch: Batch, place: Place) -> Batch:
        return batch

    def loss(self, network: nn.Module, batch: Batch) -> Terms:
        logits = network(batch["map"])[:, 0]
        return {"loss": F.binary_cross_entropy_with_logits(logits, batch["label"], reduction="none")}

    def evaluate(self, network: nn.Module, folder: Path, step: int) -> dict[str, float]:
        """The AUC on validation images."""
        assert isinstance(network, ResNet50)
        maps, labels = self.validation
        logits = MapScorer(input=self.input, network=network).logits_of(maps)
        return {"validation_auc": roc_auc(labels, logits)}

    def export(self, network: nn.Module, folder: Path, training: Mapping[str, Any]) -> None:
        write_state_dict(folder / WEIGHTS_NAME, network.state_dict())
