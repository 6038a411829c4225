"""ResNet-50 (arXiv:1512.03385), the stride in the 3x3 convolution; its state_dict has torchvision's names."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rediffuse.errors import CheckpointError
from rediffuse.models.checkpoints import load_into, read_state_dict

BLOCKS = (3, 4, 6, 3)
"""Number of bottleneck blocks in each of the four stages."""
EXPANSION = 4
"""Ratio of a block's output channels to its inner channels."""


class ResNet50(nn.Module):
    """A map (N, in_channels, H, W), any H, W >= 32, to logits (N, num_outputs)."""

    def __init__(self, num_outputs: int = 1, in_channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _stage(64, 64, BLOCKS[0], stride=1)
        self.layer2 = _stage(64 * EXPANSION, 128, BLOCKS[1], stride=2)
        self.layer3 = _stage(128 * EXPANSION, 256, BLOCKS[2], stride=2)
        self.layer4 = _stage(256 * EXPANSION, 512, BLOCKS[3], stride=2)
        self.fc = nn.Linear(512 * EXPANSION, num_outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # arXiv:1502.01852, Eq. 14 for the backward pass
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # where convolutions are faster

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.bn1(self.conv1(x)))  # (N, 64, H/2, W/2)
        h = F.max_pool2d(h, 3, stride=2, padding=1)  # (N, 64, H/4, W/4)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            h = stage(h)
        return self.fc(h.mean(dim=(2, 3)))  # (N, 2048, H/32, W/32) -> (N, num_outputs)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions around a shortcut: (N, C, H, W) to (N, 4 * channels, H/stride, W/stride)."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        out_channels = channels * EXPANSION
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            shortcut = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.bn1(self.conv1(x)))
        h = F.relu(self.bn2(self.conv2(h)))
        h = self.bn3(self.conv3(h))
        return F.relu(h + (x if self.downsample is None else self.downsample(x)))


def inflate_stem(state: Mapping[str, Tensor], in_channels: int) -> dict[str, Tensor]:
    """Widen `conv1.weight` (64, C, 7, 7) to `in_channels`: repeat its channels, divided by the number of repetitions.

    If the C channels of an input are repeated in the same way, the output is the same. Returns a new state_dict, which
    shares all other tensors.

    Raises:
        CheckpointError: `in_channels` is not a multiple of C.
    """
    stem = state["conv1.weight"]
    if in_channels % stem.shape[1]:
        raise CheckpointError(f"conv1.weight: {stem.shape[1]} channels cannot be repeated to {in_channels}")
    copies = in_channels // stem.shape[1]
    return {**state, "conv1.weight": stem.repeat(1, copies, 1, 1) / copies}


def load_resnet50(path: Path, in_channels: int = 3) -> ResNet50:
    """Load a checkpoint of torchvision, of rediffuse, or of the original DIRE, which wraps it in `{"model": ...}`.

    Args:
        path: a `.pt`, `.pth` or `.safetensors` file.
        in_channels: input channels of the network; if the file has fewer, `inflate_stem` repeats them.

    Raises:
        CheckpointError: the file holds no ResNet-50; names the file and the tensors that do not fit.
    """
    state = read_state_dict(path)
    if "conv1.weight" not in state or "fc.weight" not in state:
        raise CheckpointError(f"{path}: not a ResNet-50: conv1.weight or fc.weight is missing")
    network = ResNet50(num_outputs=len(state["fc.weight"]), in_channels=in_channels)
    load_into(network, inflate_stem(state, in_channels), path)
    return network.eval()


def _stage(in_channels: int, channels: int, num_blocks: int, stride: int) -> nn.Sequential:
    first = Bottleneck(in_channels, channels, stride)
    rest = [Bottleneck(channels * EXPANSION, channels, stride=1) for _ in range(num_blocks - 1)]
    return nn.Sequential(first, *rest)
