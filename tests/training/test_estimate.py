"""The numbers of a dry run."""

from pathlib import Path

import torch
from tiny import tiny

from rediffuse.models.config import FrequencyConfig
from rediffuse.models.unet import UNetModel
from rediffuse.training.estimate import estimate
from rediffuse.zoo.model import meta_network


def test_parameters_and_state_are_counted() -> None:
    config = tiny(Path("images"))
    num_parameters = sum(parameter.numel() for parameter in UNetModel(config.network).parameters())
    result = estimate(meta_network("unet", config.network), config.loop)
    assert result.num_parameters == num_parameters
    assert result.state_bytes == num_parameters * 4 * 6  # weights, gradient, two moments, two averages


def test_activations_are_what_autograd_keeps() -> None:
    config = tiny(Path("images"), microbatch=2, network={"dropout": 0.0})
    network = UNetModel(config.network)
    weights = {parameter.data_ptr() for parameter in network.parameters()}
    saved: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = network(torch.zeros(2, 3, 8, 8), torch.zeros(2))
    kept = sum(tensor.untyped_storage().nbytes() for key, tensor in saved.items() if key not in weights)
    assert output.shape == (2, 6, 8, 8)
    estimated = estimate(meta_network("unet", config.network), config.loop).activation_bytes
    assert abs(estimated / kept - 1) < 0.1


def test_operations_grow_with_the_batch_and_memory_with_the_microbatch() -> None:
    config = tiny(Path("images"))
    small, large, split = (
        estimate(meta_network("unet", config.network), tiny(Path("images"), batch_size=size, microbatch=micro).loop)
        for size, micro in ((4, None), (8, None), (8, 4))
    )
    assert large.operations_per_step == split.operations_per_step == 2 * small.operations_per_step
    assert split.activation_bytes == small.activation_bytes == large.activation_bytes // 2


def test_a_frozen_base_has_no_gradients_moments_or_pass_of_its_own() -> None:
    config = tiny(Path("images"), network={"frequency": FrequencyConfig()})
    whole, gates = meta_network("unet", config.network), meta_network("unet", config.network).freeze_all_but_gates()
    all_trained, gates_trained = estimate(whole, config.loop), estimate(gates, config.loop)
    num_gates = sum(parameter.numel() for parameter in whole.frequency.parameters())
    assert gates_trained.num_trained == num_gates
    frozen = all_trained.num_parameters - num_gates
    assert all_trained.state_bytes - gates_trained.state_bytes == 3 * 4 * frozen
    assert 3 * gates_trained.operations_per_step == 2 * all_trained.operations_per_step
