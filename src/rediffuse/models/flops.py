"""How many operations one call of a network takes, counted without computing it."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from rediffuse.models.superres import SuperResModel
from rediffuse.models.trunk import Trunk


def flops(model: Trunk, shape: Sequence[int]) -> int:
    """Operations of one forward pass on an input of `shape` (N, C, ...): 2 per multiply-add.

    Counted are convolutions, linear maps and attention, not the pointwise rest, on the meta device: neither the
    weights nor the device of `model` are touched. Labels and the low-resolution image are supplied as needed.
    Raises ConfigError where the shape does not fit the model.
    """
    x = torch.empty(*shape, device="meta")
    call = {"timesteps": torch.empty(len(x), device="meta")} | _conditioning(model, x)
    weights = {name: torch.empty_like(tensor, device="meta") for name, tensor in model.state_dict().items()}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        functional_call(model, weights, (x,), call)
    return counter.get_total_flops()


def _conditioning(model: Trunk, x: Tensor) -> dict[str, Tensor]:
    """Enlarging a low-resolution image is not counted, so its size does not matter."""
    conditioning = {}
    if hasattr(model, "label_emb"):
        conditioning["y"] = torch.empty(len(x), dtype=torch.int64, device="meta")
    if isinstance(model, SuperResModel):
        conditioning["low_res"] = x
    return conditioning
