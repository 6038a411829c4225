"""TorchScript files with the layout and calls of the published Inception network, but a thousand times smaller."""

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 9, 1)
        self.tower = nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.conv(x), self.tower(x)], dim=1)


class Inception(nn.Module):
    """Four layers; the resizing is written out, corner-aligned, as TensorFlow of 2015 did it."""

    def __init__(self, name: str = "mixed_6") -> None:
        super().__init__()
        self.layers = nn.Sequential()
        self.layers.add_module("pool", nn.AvgPool2d(23))
        self.layers.add_module("conv", nn.Conv2d(3, 4, 3, stride=2))
        self.layers.add_module(name, Mixed())
        self.layers.add_module("pool2", nn.AdaptiveAvgPool2d(1))
        self.output = nn.Linear(12, 5)

    def resize(self, x: Tensor, dim: int) -> Tensor:
        """Pixel i lies at i * side / 299; beyond the last pixel nothing changes."""
        side = x.shape[dim]
        place = torch.arange(299, dtype=torch.float32) * side / 299
        low = place.floor().long()
        high = (low + 1).clamp(max=side - 1)
        weight = place - low
        if dim == 2:
            weight = weight.unsqueeze(1)
        return x.index_select(dim, low) * (1 - weight) + x.index_select(dim, high) * weight

    def scale(self, x: Tensor) -> Tensor:
        return (x - 128) / 128

    def forward(
        self, img: Tensor, return_features: bool = False, use_fp16: bool = False, no_output_bias: bool = False
    ) -> Tensor:
        features = self.layers(self.scale(self.resize(self.resize(img.float(), 2), 3))).flatten(1)
        if return_features:
            return features
        logits = features @ self.output.weight.t()
        if not no_output_bias:
            logits = logits + self.output.bias
        return logits.softmax(dim=1)


class Detour(Inception):
    """Has the layers of the published network, but computes something else with them."""

    def scale(self, x: Tensor) -> Tensor:
        return x / 255


class Classifier(nn.Module):
    """A network without the argument return_features."""

    def forward(self, img: Tensor) -> Tensor:
        return img.float().mean(dim=[2, 3]).softmax(dim=1)


class Maps(nn.Module):
    """A network whose features are not vectors."""

    def forward(self, img: Tensor, return_features: bool = False, no_output_bias: bool = False) -> Tensor:
        return img.float() if return_features else img.float().mean(dim=[2, 3]).softmax(dim=1)


class Logits(nn.Module):
    """A network that returns numbers instead of probabilities."""

    def forward(self, img: Tensor, return_features: bool = False, no_output_bias: bool = False) -> Tensor:
        return img.float().mean(dim=[2, 3])


def save_script(network: nn.Module, path: Path) -> Path:
    """Write the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(network.eval()), path)
    return path


def save_inception(path: Path, kind: type[Inception] = Inception, name: str = "mixed_6") -> Path:
    """Write an `Inception` whose probabilities differ, with and without the bias of its last layer."""
    torch.manual_seed(0)
    network = kind(name)
    with torch.no_grad():
        network.output.weight.mul_(50)
        network.output.bias.copy_(torch.arange(5))
    return save_script(network, path)
