"""The memory of a forward pass, against sums computed by hand."""

import torch
from torch import Tensor, nn

from rediffuse.models.config import UNetConfig
from rediffuse.models.memory import peak_activation_bytes
from rediffuse.models.unet import UNetModel


class Chain(nn.Module):
    """Has at most two tensors of its own at a time; a view or an operation in place adds none."""

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        x = x + 1
        x = x * 2
        x = x.flatten(1).add_(1)
        return x.exp()


class Skip(nn.Module):
    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        a = x + 1
        b = a * 2
        return torch.cat([a, b])


def test_what_is_freed_counts_no_longer() -> None:
    assert peak_activation_bytes(Chain(), (1, 3, 4, 4)) == 2 * 4 * 3 * 4 * 4  # type: ignore[arg-type]


def test_what_is_kept_counts_to_the_end() -> None:
    assert peak_activation_bytes(Skip(), (1, 3, 4, 4)) == 4 * 4 * 3 * 4 * 4  # type: ignore[arg-type]


def test_activations_of_a_network_grow_with_the_batch_and_weights_are_not_among_them() -> None:
    with torch.device("meta"):
        network = UNetModel(UNetConfig(image_size=8, model_channels=32, channel_mult=(1, 2), num_res_blocks=1))
    one = peak_activation_bytes(network, (1, 3, 8, 8))
    assert peak_activation_bytes(network, (5, 3, 8, 8)) == 5 * one
    assert one >= 4 * 32 * 8 * 8 * 3  # two skips at full resolution, and what is joined to them
