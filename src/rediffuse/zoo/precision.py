"""The precision with which a device computes fastest."""

import torch

from rediffuse.models.config import Precision, PrecisionChoice


def choose_precision(choice: PrecisionChoice, device: torch.device) -> Precision:
    """The precision of a flag: `auto` is bf16 if the device has instructions for it, else fp32."""
    if choice != "auto":
        return choice
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    if device.type != "cpu":
        return "fp32"
    # Versions of torch before 2.9 do not tell.
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return "bf16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "fp32"
