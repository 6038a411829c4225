"""The autoencoder of a latent diffusion model (arXiv:2112.10752)."""

from typing import Any

import torch
from torch import Tensor, nn

from rediffuse.errors import ConfigError


class Autoencoder(nn.Module):
    """An `AutoencoderKL` with the scale of the latents on which the diffusion model was trained."""

    def __init__(self, network: Any) -> None:
        """Wrap an `AutoencoderKL`.

        Raises:
            ConfigError: its latents are scaled by channel, which is not known.
        """
        super().__init__()
        config = network.config
        if config.get("latents_mean") is not None or config.get("latents_std") is not None:
            raise ConfigError("AutoencoderKL: latents_mean and latents_std: a scale by channel is not known")
        self.network = network
        network.enable_slicing()  # one image after the other, so that a batch needs the memory of one
        self.factor: int = 2 ** (len(config.block_out_channels) - 1)
        """The side of an image, divided by that of its latent."""
        self.channels: int = config.latent_channels
        self.scale: float = config.scaling_factor
        self.shift: float = config.get("shift_factor") or 0.0

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """The mean of the posterior, shifted and scaled: (N, 3, S, S) in [-1, 1] to (N, C, S / factor, S / factor)."""
        mean = self.network.encode(images.to(self.network.dtype)).latent_dist.mean
        return (mean.to(images.dtype) - self.shift) * self.scale

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """The inverse of `encode`, which is not exact; the images are not clipped."""
        return self.network.decode((z / self.scale + self.shift).to(self.network.dtype)).sample.to(z.dtype)


class AutoencoderAlone(nn.Module):
    """The place of the denoising network of an autoencoder without one."""

    def __init__(self, network: Any) -> None:
        """Take the size and channels of the latents from an `AutoencoderKL`."""
        super().__init__()
        autoencoder = Autoencoder(network)
        size = network.config.sample_size // autoencoder.factor
        self.config = type(network.config)(sample_size=size, in_channels=autoencoder.channels)
