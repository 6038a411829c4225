"""Training a diffusion model: draws timesteps and noise, computes the loss of every sample, writes grids of samples."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rediffuse.diffusion import trajectory
from rediffuse.diffusion.importance import LossSecondMomentSampler, LowNoiseSampler, UniformSampler
from rediffuse.diffusion.losses import training_losses
from rediffuse.diffusion.noise import PerSampleNoise
from rediffuse.diffusion.process import SamplerOptions
from rediffuse.errors import ConfigError
from rediffuse.files import write_bytes
from rediffuse.images.encode import png_bytes
from rediffuse.images.montage import tile
from rediffuse.images.tensors import to_uint8
from rediffuse.models.superres import SuperResModel
from rediffuse.models.unet import Denoiser, UNetModel
from rediffuse.progress import Progress, unobserved
from rediffuse.records import dump
from rediffuse.training.config import DiffusionTraining
from rediffuse.training.data import ImageData
from rediffuse.training.listing import list_images
from rediffuse.training.quartiles import by_quartile
from rediffuse.training.randomness import GRID, NOISE, TIMESTEPS, Place, derive
from rediffuse.training.task import Batch, Task, Terms
from rediffuse.zoo.gates import GATES_FILE, write_gates
from rediffuse.zoo.model import DiffusionModel, Provenance

SAMPLERS = {
    "uniform": UniformSampler,
    "low_noise": LowNoiseSampler,
    "loss_second_moment": LossSecondMomentSampler,
}


class DiffusionTask(Task):
    """See `task.Task`.

    A batch holds x_0 (N, C, H, W) and, with classes, y (N,); `draw` adds t (N,), weight (N,), and noise like x_0.
    """

    name = "diffusion"

    def __init__(self, config: DiffusionTraining) -> None:
        self.config = config
        self.process = config.process.build()
        config.process.build(f"ddim{config.grid.num_sampling_steps}")  # checks the number of steps
        self.timestep_sampler = SAMPLERS[config.timestep_sampler](config.process.num_timesteps)

    def describe(self) -> dict[str, Any]:
        record = dump(self.config)
        del record["loop"]  # the loop records its own settings
        return record

    def build(self) -> Denoiser:
        network = self.network()
        return network.freeze_all_but_gates() if self.config.only == "frequency" else network

    def network(self) -> Denoiser:
        """The network, with all its weights trainable."""
        return UNetModel(self.config.network)

    def data(self, progress: Progress = unobserved, index: Path | None = None) -> ImageData:
        config = self.config
        listing = list_images(Path(config.data), Path(config.labels) if config.labels else None, index)
        wanted, given = config.network.num_classes, len(listing.classes)
        if wanted is not None and given != wanted:
            raise ConfigError(f"num_classes={wanted}: {config.data} has {given} classes")
        size, seed = config.network.image_size, config.loop.seed
        return ImageData(listing, config.images, size, seed, progress=progress)

    def draw(self, batch: Batch, place: Place) -> Batch:
        t, weight = self.timestep_sampler.sample(place.batch_size, place.generator(TIMESTEPS))
        noise = PerSampleNoise(place.sample_seeds(NOISE))(batch["x_0"])
        return {**batch, "t": t[place.in_batch], "weight": weight[place.in_batch], "noise": noise}

    def loss(self, network: nn.Module, batch: Batch) -> Terms:
        x_0, t, noise, weight = (batch[name] for name in ("x_0", "t", "noise", "weight"))
        terms = training_losses(self.process, network, x_0, t, noise, self.config.loss, self.conditioning(batch))
        weighted = {name: value * weight for name, value in terms.items()}
        return {**weighted, "unweighted": terms["loss"], "t": t}

    @property
    def draws_from_losses(self) -> bool:
        return self.config.timestep_sampler == "loss_second_moment"

    def observe(self, terms: Terms) -> dict[str, Tensor]:
        t = terms["t"].long()
        self.timestep_sampler.update(t, terms["unweighted"])
        logged = {name: value for name, value in terms.items() if name not in ("t", "unweighted")}
        return logged | by_quartile(logged, t, self.config.process.num_timesteps)

    def conditioning(self, batch: Batch) -> dict[str, Tensor]:
        """The arguments of the network beside x_t and t, from a batch."""
        return {"y": batch["y"]} if self.config.network.num_classes is not None else {}

    def evaluate(self, network: nn.Module, folder: Path, step: int) -> dict[str, float]:
        """Write a grid of DDIM samples, from the same noise in every evaluation."""
        num_images, num_classes = self.config.grid.num_images, self.config.network.num_classes
        conditioning = {}
        if num_classes is not None:
            conditioning["y"] = torch.arange(num_images, device=next(network.parameters()).device) % num_classes
        write_grid(folder, step, self.sample(network, num_images, conditioning))
        return {}

    def sample(self, network: nn.Module, num_images: int, conditioning: Mapping[str, Tensor]) -> Tensor:
        """Sample (num_images, C, H, W) by DDIM, from the same noise in every evaluation."""
        config, seed = self.config.network, self.config.loop.seed
        process = self.config.process.build(f"ddim{self.config.grid.num_sampling_steps}")
        seeds = [derive(seed, GRID, index) for index in range(num_images)]
        shape = (config.in_channels, config.image_size, config.image_size)
        x_T = PerSampleNoise(seeds).normal(shape).to(next(network.parameters()).device)
        return trajectory.last(
            trajectory.sample("ddim", process, network, x_T, SamplerOptions(conditioning=conditioning))
        )

    def export(self, network: nn.Module, folder: Path, training: Mapping[str, Any]) -> None:
        assert isinstance(network, UNetModel | SuperResModel)
        provenance = Provenance(source=str(folder), sha256="")
        DiffusionModel(
            network=network, process_config=self.config.process, provenance=provenance, training=training
        ).save(folder)
        if self.config.network.frequency is not None:
            write_gates(folder / GATES_FILE, network)

    def state_dict(self) -> dict[str, Any]:
        return self.timestep_sampler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.timestep_sampler.load_state_dict(state)


def write_grid(folder: Path, step: int, images: Tensor) -> None:
    """Write images (N, C, H, W) in [-1, 1] as one picture whose name is the step."""
    write_bytes(folder / f"step_{step:08d}.png", png_bytes(tile(to_uint8(images))))
