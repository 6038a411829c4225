"""Reconstructions made without a model: the frequencies of their errors depend on the class."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rediffuse.dire.bands import band_maps
from rediffuse.dire.reconstruct import Reconstruction
from rediffuse.dire.settings import DireSettings

SETTINGS = DireSettings(image_size=16, model_sha256="0" * 64, steps=20, depth=5)
Make = Callable[..., Reconstruction]


@pytest.fixture(scope="session")
def make() -> Make:
    """`make(labels, seed=0)`: 16 px images; with label 1 the error in the high bands is twice as large."""
    return make_reconstruction


def make_reconstruction(
    labels: Tensor, seed: int = 0, settings: DireSettings = SETTINGS, second_view: bool = False
) -> Reconstruction:
    settings = replace(settings, second_view=second_view)
    generator = torch.Generator().manual_seed(seed)
    shape = (len(labels), 3, settings.image_size, settings.image_size)
    x_0 = torch.rand(shape, generator=generator) * 2 - 1
    noise = band_maps(0.1 * torch.randn(shape, generator=generator))  # (N, K, 3, S, S)
    amplitude = 1 + labels[:, None] * (torch.arange(noise.shape[1]) >= 5)  # (N, K)
    error = (noise * amplitude[:, :, None, None, None]).sum(dim=1)
    second = x_0 - 2 * error if second_view else None
    lpips = error.abs().mean(dim=(1, 2, 3))[:, None] * torch.arange(1, 6)
    return Reconstruction(
        x_0=x_0, x_T=torch.zeros(shape), x_0_hat=x_0 - error, settings=settings, second=second, lpips=lpips
    )
