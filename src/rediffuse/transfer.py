"""Copies of tensors to a device and back for which the program does not wait."""

import torch
from torch import Tensor


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """x on the device. A GPU copies it from pinned memory while the program goes on, which may change x."""
    if device.type == "cuda" and x.device.type == "cpu":
        x = x.pin_memory()  # a copy, which torch keeps until the GPU has read it
    return x.to(device, non_blocking=device.type != "mps")  # which would read x after later changes of it


class OnHost:
    """A copy of a tensor on the host, whose reader waits for it, but not for work of the device that began later."""

    def __init__(self, x: Tensor) -> None:
        self._copy = x.to("cpu", non_blocking=x.device.type == "cuda")  # in pinned memory
        self._copied = torch.cuda.current_stream(x.device).record_event() if x.device.type == "cuda" else None

    def read(self) -> Tensor:
        if self._copied is not None:
            self._copied.synchronize()
        return self._copy
