"""Estimate the memory and operations of a training without running it."""

from dataclasses import dataclass

import torch

from rediffuse.models.flops import flops
from rediffuse.models.meta import meta_conditioning
from rediffuse.models.trunk import Trunk
from rediffuse.training.config import LoopConfig


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The cost of a training on one process."""

    num_parameters: int
    num_trained: int
    operations_per_step: int
    """Multiplications and additions, forward and backward, of the whole batch; an upper limit if parts are frozen."""
    state_bytes: int
    """Bytes of weights and their averages, and of gradients and AdamW's two moments of the trained weights."""
    activation_bytes: int
    """Bytes that the forward pass of one microbatch keeps for the backward pass."""

    def __str__(self) -> str:
        return (
            f"parameters           {self.num_parameters:,}, of which {self.num_trained:,} are trained\n"
            f"operations per step  {self.operations_per_step / 1e9:,.1f} G\n"
            f"memory (estimate)    {(self.state_bytes + self.activation_bytes) / 2**20:,.0f} MiB: "
            f"{self.state_bytes / 2**20:,.0f} state + {self.activation_bytes / 2**20:,.0f} activations"
        )


def estimate(model: Trunk, loop: LoopConfig) -> Estimate:
    """The cost of training `model`, a network on the meta device (`zoo.model.meta_network`), with `loop`."""
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    num_trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    shape = (1, model.config.in_channels, *(model.config.image_size,) * model.config.dims)
    bytes_per_value = 4 if loop.precision == "fp32" else 2
    images_at_once = min(loop.microbatch or loop.batch_size, loop.batch_size)
    return Estimate(
        num_parameters=num_parameters,
        num_trained=num_trained,
        # The backward pass costs two forward passes: one for gradients of inputs, one for those of trained weights.
        operations_per_step=(3 if num_trained == num_parameters else 2) * flops(model, shape) * loop.batch_size,
        state_bytes=4 * (num_parameters * (1 + len(loop.ema_rates)) + 3 * num_trained),
        activation_bytes=_saved_values(model, shape) * bytes_per_value * images_at_once,
    )


def _saved_values(model: Trunk, shape: tuple[int, ...]) -> int:
    """How many numbers autograd keeps of a forward pass; counts every storage once and no weights."""
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    saved: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage()._cdata] = tensor
        return tensor

    x = torch.empty(shape, device="meta")
    timesteps = torch.empty(len(x), device="meta")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(x, timesteps, **meta_conditioning(model, x))
    total = sum(tensor.untyped_storage().nbytes() // 4 for storage, tensor in saved.items() if storage not in weights)
    del output  # it kept the graph and its storages alive until they were counted
    return total
