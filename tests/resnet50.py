"""A ResNet-50 as torchvision defines it, written without rediffuse: names, shapes and arithmetic."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))
"""The inner channels and the number of blocks of each stage."""
NORM = ("running_mean", "running_var", "weight", "bias")


def shapes(num_outputs: int = 1) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of the state_dict."""
    found: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7), **_norm("bn1", 64)}
    width = 64
    for stage, (inner, blocks) in enumerate(STAGES, 1):
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            sizes = ((inner, width, 1), (inner, inner, 3), (4 * inner, inner, 1))
            for number, (after, before, side) in enumerate(sizes, 1):
                found[f"{name}.conv{number}.weight"] = (after, before, side, side)
                found |= _norm(f"{name}.bn{number}", after)
            if block == 0:
                found[f"{name}.downsample.0.weight"] = (4 * inner, width, 1, 1)
                found |= _norm(f"{name}.downsample.1", 4 * inner)
            width = 4 * inner
    return found | {"fc.weight": (num_outputs, width), "fc.bias": (num_outputs,)}


def random_state(seed: int) -> dict[str, Tensor]:
    """Random weights with which the logit differs between images."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes().items():
        noise = torch.randn(shape, generator=generator)
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        elif name.endswith("running_var"):
            state[name] = 1 + 0.1 * noise.abs()
        elif len(shape) > 1:
            state[name] = noise * math.sqrt(2 / math.prod(shape[1:]))
        elif name.endswith("bn3.weight"):
            state[name] = 0.2 + 0.02 * noise
        else:
            state[name] = float(name.endswith("weight")) + 0.1 * noise
    return state


def logits(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """(N, num_outputs) of images (N, 3, H, W)."""

    def conv(h: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        return F.conv2d(h, weight, stride=stride, padding=weight.shape[-1] // 2)

    def norm(h: Tensor, name: str) -> Tensor:
        mean, variance, weight, bias = (state[f"{name}.{part}"][:, None, None] for part in NORM)
        return (h - mean) / (variance + 1e-5).sqrt() * weight + bias

    h = F.max_pool2d(norm(conv(x, "conv1", stride=2), "bn1").relu(), 3, stride=2, padding=1)
    for stage, (_, blocks) in enumerate(STAGES, 1):
        for block in range(blocks):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            inner = norm(conv(h, f"{name}.conv1"), f"{name}.bn1").relu()
            inner = norm(conv(inner, f"{name}.conv2", stride), f"{name}.bn2").relu()
            inner = norm(conv(inner, f"{name}.conv3"), f"{name}.bn3")
            if block == 0:
                h = norm(conv(h, f"{name}.downsample.0", stride), f"{name}.downsample.1")
            h = (h + inner).relu()
    return F.linear(h.mean(dim=(2, 3)), state["fc.weight"], state["fc.bias"])


def _norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.{part}": (channels,) for part in NORM} | {f"{name}.num_batches_tracked": ()}
