"""The autoencoder of a latent diffusion model (arXiv:2112.10752)."""

from typing import Any

import torch
from torch import Tensor, nn

from rediffuse.errors import ConfigError


class Autoencoder(nn.Module):
    """An `AutoencoderKL` or a `VQModel` with the scale of the latents on which the diffusion model was trained."""

    def __init__(self, network: Any) -> None:
        """Wrap an autoencoder.

        Raises:
            ConfigError: its latents are scaled by channel, which is not known, or its images are not square.
        """
        super().__init__()
        config = network.config
        if config.get("latents_mean") is not None or config.get("latents_std") is not None:
            raise ConfigError(
                f"{type(network).__name__}: latents_mean and latents_std: a scale by channel is not known"
            )
        side = config.sample_size
        if not isinstance(side, int):
            raise ConfigError(f"{type(network).__name__}: sample_size={side}; the side of a square is needed")
        self.network = network
        self.factor: int = 2 ** (len(config.block_out_channels) - 1)
        """The side of an image, divided by that of its latent."""
        self.side: int = side // self.factor
        """The side of the latents of the images on which it was trained."""
        self.channels: int = config.get("vq_embed_dim") or config.latent_channels
        self.scale = float(config.scaling_factor)
        self.shift = float(config.get("shift_factor") or 0.0)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """The shifted and scaled latents (N, C, S / factor, S / factor) of images (N, 3, S, S) in [-1, 1].

        The mean of the posterior of an `AutoencoderKL`; the latents of a `VQModel` before their quantisation, which is
        a part of `decode`.
        """
        encoded = [self.network.encode(image) for image in images.to(self.network.dtype).split(1)]
        z = torch.cat([one.latents if hasattr(one, "latents") else one.latent_dist.mean for one in encoded])
        return (z.to(images.dtype) - self.shift) * self.scale

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """The inverse of `encode`, which is not exact; the images are not clipped."""
        parts = (z / self.scale + self.shift).to(self.network.dtype).split(1)
        # One image after the other, here as in `encode`, so that a batch needs the memory of one.
        return torch.cat([self.network.decode(part).sample for part in parts]).to(z.dtype)


class AutoencoderAlone(nn.Module):
    """The place of the denoising network of an autoencoder without one."""

    def __init__(self, network: Any) -> None:
        """Take the size and channels of the latents from an autoencoder."""
        super().__init__()
        autoencoder = Autoencoder(network)
        self.config = type(network.config)(sample_size=autoencoder.side, in_channels=autoencoder.channels)
