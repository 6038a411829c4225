"""A forward pass on the meta device: every operation with its shapes, and no arithmetic."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from rediffuse.models.superres import SuperResModel
from rediffuse.models.trunk import Trunk


def forward_on_meta(model: Trunk, shape: Sequence[int], *watchers: AbstractContextManager[Any]) -> Tensor:
    """The output of one forward pass on an input of `shape` (N, C, ...), without its numbers.

    Labels and the low-resolution image are supplied as needed; neither the weights nor the device of `model` are
    touched. The watchers are entered for the pass itself. Raises ConfigError where the shape does not fit the model.
    """
    x = torch.empty(*shape, device="meta")
    call = {"timesteps": torch.empty(len(x), device="meta")} | meta_conditioning(model, x)
    weights = {name: torch.empty_like(tensor, device="meta") for name, tensor in model.state_dict().items()}
    with torch.no_grad(), ExitStack() as stack:
        for watcher in watchers:
            stack.enter_context(watcher)
        return functional_call(model, weights, (x,), call)


def meta_conditioning(model: Trunk, x: Tensor) -> dict[str, Tensor]:
    """What the model needs beside x and the timesteps, without numbers.

    Enlarging a low-resolution image costs next to nothing, so its size does not matter.
    """
    conditioning = {}
    if hasattr(model, "label_emb"):
        conditioning["y"] = torch.empty(len(x), dtype=torch.int64, device="meta")
    if isinstance(model, SuperResModel):
        conditioning["low_res"] = x
    return conditioning
