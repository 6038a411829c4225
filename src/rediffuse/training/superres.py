"""Training a super-resolution model (arXiv:2105.05233, Sec. 4.4), which takes a small version of the image as input."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rediffuse.models.superres import SuperResModel
from rediffuse.progress import Progress, unobserved
from rediffuse.training.config import SuperResTraining
from rediffuse.training.data import ImageData
from rediffuse.training.diffusion import DiffusionTask, write_grid
from rediffuse.training.listing import list_images
from rediffuse.training.task import Batch


class SuperResTask(DiffusionTask):
    """See `DiffusionTask`; x_0 is the large image, and low_res (N, C, s, s) is computed from it."""

    name = "superres"
    config: SuperResTraining

    def __init__(self, config: SuperResTraining) -> None:
        super().__init__(config)
        self.shown: Batch = {}

    def network(self) -> SuperResModel:
        return SuperResModel(self.config.network)

    def data(self, progress: Progress = unobserved, index: Path | None = None) -> ImageData:
        """The training images; the images of the grid are read too."""
        data = super().data(progress, index)
        self.shown = self._read_grid_images(data.listing.classes)
        return data

    def conditioning(self, batch: Batch) -> dict[str, Tensor]:
        return super().conditioning(batch) | {"low_res": shrink(batch["x_0"], self.config.small_size)}

    @torch.no_grad()
    def evaluate(self, network: nn.Module, folder: Path, step: int) -> dict[str, float]:
        """Write triples (bicubic, sample, original); return the mean PSNR of samples and of bicubic enlargement."""
        device = next(network.parameters()).device
        shown = {name: value.to(device) for name, value in self.shown.items()}
        x_0, conditioning = shown["x_0"], self.conditioning(shown)
        bicubic = F.interpolate(conditioning["low_res"], x_0.shape[2:], mode="bicubic").clamp(-1, 1)
        sampled = self.sample(network, len(x_0), conditioning).clamp(-1, 1)
        write_grid(folder, step, torch.cat([bicubic, sampled, x_0], dim=3))
        return {"psnr": float(psnr(sampled, x_0).mean()), "psnr_bicubic": float(psnr(bicubic, x_0).mean())}

    def _read_grid_images(self, classes: tuple[str, ...]) -> Batch:
        """As many images as the grid has, evenly spread over the folder."""
        config = self.config
        if config.validation is None:
            folder, labels = config.data, config.labels
        else:
            folder, labels = config.validation, config.validation_labels
        listing = list_images(Path(folder), Path(labels) if labels else None)
        if config.network.num_classes is not None:
            listing = listing.numbered_as(classes)
        stride = -(-len(listing) // config.grid.num_images)
        few = listing.only(range(0, len(listing), stride))
        plain = replace(config.images, random_flip=False, random_crop=False)
        data = ImageData(few, plain, config.network.image_size, config.loop.seed)
        return data[range(len(data))]


def shrink(images: Tensor, size: int) -> Tensor:
    """(N, C, H, W) to (N, C, size, size) by area averages, as guided-diffusion makes its small images."""
    return F.interpolate(images, (size, size), mode="area")


def psnr(images: Tensor, reference: Tensor) -> Tensor:
    """(N,): peak signal-to-noise ratio in dB of images (N, C, H, W) in [-1, 1], whose peak is 2; at most 106."""
    return 10 * torch.log10(4 / (images - reference).square().flatten(1).mean(dim=1).clamp(min=1e-10))
