"""Keep the parts of a pipeline in main memory, and only the part that computes in the memory of a device."""

from typing import Any

import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from accelerate.utils import send_to_device
from torch import nn


class Offload(ModelHook):
    """One hook for all parts of a pipeline: moves the part that computes to the device, and the one before it back.

    `enable_model_cpu_offload` of diffusers does the same in the order of its pipelines.
    """

    def __init__(self, device: torch.device) -> None:
        self.execution_device = device  # diffusers looks for this name
        self.active: nn.Module | None = None
        """The part that is on the device."""

    def attach(self, part: nn.Module) -> None:
        """Call the hook before `part` computes, and no other hook."""
        add_hook_to_module(part, self)

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Called by accelerate before `forward`, and by diffusers before `encode` and `decode` of autoencoders."""
        if module is not self.active:
            if self.active is not None:
                self.active.to("cpu")
            self.active = module.to(self.execution_device)
        return send_to_device(args, self.execution_device), send_to_device(kwargs, self.execution_device)
