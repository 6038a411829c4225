"""A forward pass on the meta device: the shapes of every operation, without arithmetic."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from rediffuse.models.superres import SuperResModel


def forward_on_meta(model: nn.Module, shape: Sequence[int], *contexts: AbstractContextManager[Any]) -> Tensor:
    """Run one forward pass on an input of `shape` (N, C, ...) within `contexts`; the output has a shape and no values.

    Labels and the low-resolution image are supplied as needed. Does not change `model`. Raises ConfigError where the
    shape does not fit the model.
    """
    x = torch.empty(*shape, device="meta")
    call = {"timesteps": torch.empty(len(x), device="meta")} | meta_conditioning(model, x)
    tensors = [*model.named_parameters(), *model.named_buffers()]
    weights = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors}
    with torch.no_grad(), ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context)
        return functional_call(model, weights, (x,), call)


def meta_conditioning(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The arguments that the model needs beside x and the timesteps, as meta tensors.

    Enlarging the low-resolution image costs almost nothing, so it may have any size: it is x itself.
    """
    conditioning = {}
    if getattr(getattr(model, "config", None), "num_classes", None) is not None:
        conditioning["y"] = torch.empty(len(x), dtype=torch.int64, device="meta")
    if isinstance(model, SuperResModel):
        conditioning["low_res"] = x
    return conditioning
