"""Training a classifier of noisy images, for classifier guidance (arXiv:2105.05233, Sec. 4)."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rediffuse.diffusion.importance import UniformSampler
from rediffuse.diffusion.noise import PerSampleNoise
from rediffuse.errors import ConfigError, InputError
from rediffuse.models.encoder import EncoderUNetModel
from rediffuse.progress import Progress, unobserved
from rediffuse.records import dump
from rediffuse.training.config import ClassifierTraining
from rediffuse.training.data import ImageData
from rediffuse.training.listing import list_images
from rediffuse.training.quartiles import by_quartile
from rediffuse.training.randomness import NOISE, TIMESTEPS, VALIDATION, Place, derive
from rediffuse.training.task import Batch, Task, Terms
from rediffuse.zoo.model import ClassifierModel, Provenance


class ClassifierTask(Task):
    """See `task.Task`. A batch holds x_0 (N, C, H, W) and y (N,); `draw` replaces x_0 with x_t and adds t (N,)."""

    name = "classifier"

    def __init__(self, config: ClassifierTraining) -> None:
        self.config = config
        self.process = config.process.build()
        self.timestep_sampler = UniformSampler(config.process.num_timesteps)
        self.validation: ImageData | None = None

    def describe(self) -> dict[str, Any]:
        record = dump(self.config)
        del record["loop"]  # the loop records its own settings
        return record

    def build(self) -> EncoderUNetModel:
        return EncoderUNetModel(self.config.network)

    def data(self, progress: Progress = unobserved, index: Path | None = None) -> ImageData:
        """The training images. Validation images are read too, so that errors in them appear before the first step."""
        config = self.config
        listing = list_images(Path(config.data), Path(config.labels) if config.labels else None, index)
        if not listing.classes:
            raise InputError(f"{config.data}: has no classes: a classifier needs subfolders or labels")
        if config.network.out_channels != len(listing.classes):
            raise ConfigError(
                f"out_channels={config.network.out_channels}: {config.data} has {len(listing.classes)} classes"
            )
        if config.validation is not None:
            self.validation = self._read_validation(config.validation, listing.classes)
        return ImageData(listing, config.images, config.network.image_size, config.loop.seed, progress=progress)

    def draw(self, batch: Batch, place: Place) -> Batch:
        x_0 = batch["x_0"]
        if self.config.clean:
            return {"y": batch["y"], "t": torch.zeros(len(x_0), dtype=torch.int64), "x_t": x_0}
        t = self.timestep_sampler.sample(place.batch_size, place.generator(TIMESTEPS))[0][place.in_batch]
        noise = PerSampleNoise(place.sample_seeds(NOISE))(x_0)
        return {"y": batch["y"], "t": t, "x_t": self.process.q_sample(x_0, t, noise)}

    def loss(self, network: nn.Module, batch: Batch) -> Terms:
        y = batch["y"]
        logits = network(batch["x_t"], self.process.network_timesteps(batch["t"], batch["x_t"]))
        rank = _rank(logits.detach(), y)
        return {
            "loss": F.cross_entropy(logits, y, reduction="none"),
            "top1": (rank < 1).float(),
            "top5": (rank < 5).float(),
            "t": batch["t"],
        }

    def observe(self, terms: Terms) -> dict[str, Tensor]:
        logged = {name: value for name, value in terms.items() if name != "t"}
        if self.config.clean:
            return logged
        return logged | by_quartile(logged, terms["t"].long(), self.config.process.num_timesteps)

    @torch.no_grad()
    def evaluate(self, network: nn.Module, folder: Path, step: int) -> dict[str, float]:
        """Loss and accuracies on all validation images, at the same t and with the same noise in every evaluation."""
        if self.validation is None:
            return {}
        loop, device = self.config.loop, next(network.parameters()).device
        size, seed = loop.microbatch or loop.batch_size, derive(loop.seed, VALIDATION)
        parts: list[Terms] = []
        for part, first in enumerate(range(0, len(self.validation), size)):
            positions = range(first, min(first + size, len(self.validation)))
            batch = self.draw(self.validation[positions], Place(seed, part, size, positions))
            parts.append(self.loss(network, {name: value.to(device) for name, value in batch.items()}))
        terms = {name: torch.cat([part[name] for part in parts]).cpu() for name in parts[0]}
        # There is no mean for a quarter of the timesteps in which no t was drawn.
        return {f"validation_{name}": float(value.mean()) for name, value in self.observe(terms).items() if len(value)}

    def export(self, network: nn.Module, folder: Path, training: Mapping[str, Any]) -> None:
        assert isinstance(network, EncoderUNetModel)
        provenance = Provenance(source=str(folder), sha256="")
        ClassifierModel(
            network=network, process_config=self.config.process, provenance=provenance, training=training
        ).save(folder)

    def _read_validation(self, folder: str, classes: tuple[str, ...]) -> ImageData:
        config = self.config
        listing = list_images(Path(folder), Path(config.validation_labels) if config.validation_labels else None)
        plain = replace(config.images, random_flip=False, random_crop=False)
        return ImageData(listing.numbered_as(classes), plain, config.network.image_size, config.loop.seed)


def _rank(logits: Tensor, y: Tensor) -> Tensor:
    """(N,): how many other classes score at least as high as the true one, so equal scores count as wrong."""
    return (logits >= logits.gather(1, y[:, None])).sum(dim=1) - 1
