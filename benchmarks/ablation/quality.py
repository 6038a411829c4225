"""The quality of the diffusion model: validation loss, and the distance between its samples and photographs."""

from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ablation.networks import Networks, Variant
from ablation.work import Work
from rediffuse.diffusion.losses import training_losses
from rediffuse.diffusion.noise import PerSampleNoise
from rediffuse.evaluation.statistics import Moments, RunningMoments, frechet_distance
from rediffuse.images.crop import center_crop
from rediffuse.images.decode import decode
from rediffuse.images.find import find_images
from rediffuse.images.tensors import to_tensor
from rediffuse.sampling.config import SamplingSettings
from rediffuse.sampling.sample import sample
from rediffuse.zoo.model import ClassifierModel, DiffusionModel, load

FAST = SamplingSettings(sampler="dpm_solver", steps=15)


class Quality:
    """Measures the variants of a U-Net."""

    def __init__(self, work: Work, networks: Networks) -> None:
        self.work, self.networks = work, networks

    @cached_property
    def judge(self) -> ClassifierModel:
        """The network that computes the features of the Frechet distance."""
        return self.networks.judge()

    @cached_property
    def photos(self) -> dict[str, Tensor]:
        """Photographs that were not used for training, by split."""
        return {split: self._read(split) for split in ("validation", "test")}

    def measure(self, variant: Variant, seed: int) -> dict[str, Any]:
        """Validation loss per image, and the Frechet distance of samples."""

        def measured() -> dict[str, Any]:
            model = load(variant.source(seed), device=self.work.device)
            return {
                "losses": self.losses(model, variant.frequency, seed),
                "frechet": self.frechet(model, variant.frequency, seed),
            }

        return self.work.kept(f"quality/{variant.key}-{seed}", measured)

    def losses(self, model: DiffusionModel, frequency: str, seed: int) -> list[float]:
        """One hybrid loss per validation photograph; t is spread over the chain, t and noise depend on the seed."""
        process, x_0 = model.process(), self.photos["validation"]
        order = np.random.default_rng(seed).permutation(len(x_0))
        t = torch.from_numpy(order * process.num_timesteps // len(x_0))
        noise = PerSampleNoise([1_000_000 * seed + place for place in range(len(x_0))])(x_0)
        network, losses = model.denoiser(replace(FAST, frequency=frequency)), []
        with torch.inference_mode():
            for part in torch.arange(len(x_0)).split(64):
                x, at, z = (tensor[part].to(self.work.device) for tensor in (x_0, t, noise))
                losses.append(training_losses(process, network, x, at, z)["loss"].cpu())
        return torch.cat(losses).tolist()

    def frechet(self, model: DiffusionModel, frequency: str, seed: int) -> float:
        """The Frechet distance between the features of samples and of all validation and test photographs."""
        settings = replace(FAST, frequency=frequency)
        seeds = range(50_000_000 + 10_000 * seed, 50_000_000 + 10_000 * seed + self.work.size.num_samples)
        samples = torch.stack(list(sample(model, seeds, settings, batch_size=64))).clamp(-1, 1)
        reference = torch.cat([self.photos["validation"], self.photos["test"]])
        return frechet_distance(*(self._moments(images) for images in (samples, reference)))

    def _moments(self, images: Tensor) -> Moments:
        network, moments = self.judge.network, RunningMoments()
        features: list[Tensor] = []
        mean_over_pixels = network.out.get_submodule("2")
        handle = mean_over_pixels.register_forward_hook(lambda *call: features.append(call[2].flatten(1)))
        with torch.inference_mode():
            for part in images.split(64):
                network(part.to(self.work.device), torch.zeros(len(part), device=self.work.device))
        handle.remove()
        moments.update(torch.cat(features))
        return moments.moments()

    def _read(self, split: str) -> Tensor:
        found = find_images([self.work.photos / split])
        return to_tensor(np.stack([center_crop(decode(image.path).pixels, 32) for image in found]))
