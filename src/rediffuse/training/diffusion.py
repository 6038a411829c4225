"""Training a diffusion model: timesteps and noise in, the loss of every sample out, grids of samples on the way."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rediffuse.diffusion import ddim
from rediffuse.diffusion.importance import LossSecondMomentSampler, UniformSampler
from rediffuse.diffusion.losses import training_losses
from rediffuse.diffusion.noise import PerSampleNoise
from rediffuse.diffusion.process import SamplerOptions
from rediffuse.errors import ConfigError
from rediffuse.files import write_bytes
from rediffuse.images.encode import png_bytes
from rediffuse.images.tensors import to_uint8
from rediffuse.models.unet import UNetModel
from rediffuse.records import dump
from rediffuse.training.config import DiffusionTraining
from rediffuse.training.data import ImageData, list_images
from rediffuse.training.randomness import GRID, NOISE, TIMESTEPS, Place, derive
from rediffuse.training.task import Batch, Task, Terms
from rediffuse.zoo.model import DiffusionModel, Provenance

SAMPLERS = {"uniform": UniformSampler, "loss_second_moment": LossSecondMomentSampler}


class DiffusionTask(Task):
    """See `task.Task`.

    A batch holds x_0 (N, C, H, W), y (N,) where there are classes, and, once drawn, t, weight (N,) and noise like x_0.
    """

    name = "diffusion"

    def __init__(self, config: DiffusionTraining) -> None:
        self.config = config
        self.process = config.process.build()
        self.timestep_sampler = SAMPLERS[config.timestep_sampler](config.process.num_timesteps)

    def describe(self) -> dict[str, Any]:
        record = dump(self.config)
        del record["loop"]  # the loop notes its own
        return record

    def build(self) -> UNetModel:
        return UNetModel(self.config.network)

    def data(self) -> ImageData:
        config = self.config
        listing = list_images(Path(config.data), Path(config.labels) if config.labels else None)
        wanted, given = config.network.num_classes, len(listing.classes)
        if wanted is not None and given != wanted:
            raise ConfigError(f"num_classes={wanted}: {config.data} has {given} classes")
        return ImageData(listing, config.images, config.network.image_size, config.loop.seed)

    def draw(self, batch: Batch, place: Place) -> Batch:
        t, weight = self.timestep_sampler.sample(place.batch_size, place.generator(TIMESTEPS))
        noise = PerSampleNoise(place.sample_seeds(NOISE))(batch["x_0"])
        return {**batch, "t": t[place.in_batch], "weight": weight[place.in_batch], "noise": noise}

    def loss(self, network: nn.Module, batch: Batch) -> Terms:
        conditioning = {"y": batch["y"]} if self.config.network.num_classes is not None else {}
        x_0, t, noise, weight = (batch[name] for name in ("x_0", "t", "noise", "weight"))
        terms = training_losses(self.process, network, x_0, t, noise, self.config.loss, conditioning)
        weighted = {name: value * weight for name, value in terms.items()}
        return {**weighted, "unweighted": terms["loss"], "t": t}

    def observe(self, terms: Terms) -> dict[str, Tensor]:
        t = terms["t"].long()
        self.timestep_sampler.update(t, terms["unweighted"])
        logged = {name: value for name, value in terms.items() if name not in ("t", "unweighted")}
        quartile = 4 * t // self.config.process.num_timesteps
        return logged | {f"loss_q{q}": terms["loss"][quartile == q] for q in range(4)}

    def evaluate(self, network: nn.Module, folder: Path, step: int) -> dict[str, float]:
        """Write a grid of DDIM samples, from the same noise every time."""
        grid, config = self.config.grid, self.config.network
        process = self.config.process.build(f"ddim{grid.num_sampling_steps}")
        seeds = [derive(self.config.loop.seed, GRID, index) for index in range(grid.num_images)]
        device = next(network.parameters()).device
        shape = (config.in_channels, config.image_size, config.image_size)
        x_T = PerSampleNoise(seeds).normal(shape).to(device)
        conditioning = {}
        if config.num_classes is not None:
            conditioning["y"] = torch.arange(grid.num_images, device=device) % config.num_classes
        x_0 = ddim.sample(process, network, x_T, SamplerOptions(conditioning=conditioning))
        write_bytes(folder / f"step_{step:08d}.png", png_bytes(to_uint8(tile(x_0))))
        return {}

    def export(self, network: nn.Module, folder: Path, training: Mapping[str, Any]) -> None:
        assert isinstance(network, UNetModel)
        provenance = Provenance(source=str(folder), sha256="")
        DiffusionModel(
            network=network, process_config=self.config.process, provenance=provenance, training=training
        ).save(folder)

    def state_dict(self) -> dict[str, Any]:
        return self.timestep_sampler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.timestep_sampler.load_state_dict(state)


def tile(images: Tensor) -> Tensor:
    """(N, C, H, W) to one image (C, rows * H, columns * W), as square as N allows; missing ones are -1 (black)."""
    n, channels, height, width = images.shape
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    missing = images.new_full((rows * columns - n, channels, height, width), -1)
    grid = torch.cat([images, missing]).reshape(rows, columns, channels, height, width)
    return grid.permute(2, 0, 3, 1, 4).reshape(channels, rows * height, columns * width)
