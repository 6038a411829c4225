"""LPIPS, a perceptual distance of images (arXiv:1801.03924), from the published weights of VGG16 and of lpips 0.1."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn

from rediffuse.files import sha256_of
from rediffuse.models.checkpoints import read_state_dict, require_finite, require_fit

VGG16_FILE, LINEAR_FILE = "vgg16-397923af.pth", "vgg.pth"
"""The names under which torchvision publishes VGG16, and the lpips package the weights of its channels."""
LEAST_SIDE = 16
"""Side of the smallest images: VGG16 halves them four times."""
_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Width and number of convolutions between two poolings of VGG16 (arXiv:1409.1556, Table 1, column D)."""
_MEAN, _STD = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Of photographs in [-1, 1], as the lpips package has them."""


class Lpips(nn.Module):
    """The distance in five layers of VGG16, with the names of the published tensors."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        self._ends: list[int] = []
        channels = 3
        for stage, (width, depth) in enumerate(_STAGES):
            layers += [nn.MaxPool2d(2)] if stage else []
            for _ in range(depth):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            self._ends.append(len(layers) - 1)
            line = nn.Module()
            line.model = nn.Sequential(nn.Dropout(), nn.Conv2d(width, 1, 1, bias=False))
            self.add_module(f"lin{stage}", line)
        self.features = nn.Sequential(*layers)
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(_STD)[:, None, None], persistent=False)

    @torch.no_grad()
    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        """The distance of each image from the other one by layer, (N, 5) of 0 or more; LPIPS is their sum.

        Args:
            images: (N, 3, S, S) in [-1, 1], S at least `LEAST_SIDE`.
            others: shaped like `images`.
        """
        # One pair after the other, so that a batch needs the memory of one.
        pairs = zip(images.split(1), others.split(1), strict=True)
        return torch.stack([self._distances(torch.cat(pair)) for pair in pairs])

    def _distances(self, pair: Tensor) -> Tensor:
        """(5,) from (2, 3, S, S)."""
        x = (pair - self.mean) / self.std
        distances = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self._ends:
                # Eq. 1: w (y_hat - y'_hat)^2, averaged over the image; y_hat has unit length over the channels
                unit = x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)
                line = self.get_submodule(f"lin{len(distances)}.model")
                distances.append(line((unit[:1] - unit[1:]).square()).mean())
        return torch.stack(distances)


def read_lpips(folder: Path) -> tuple[Lpips, str]:
    """The network in eval mode from a folder with both published files, and the SHA-256 of these.

    Raises:
        InputError: a file is missing.
        CheckpointError: a file is damaged, or holds other tensors.
        ConfigError: the weights hold NaN.
    """
    paths = folder / VGG16_FILE, folder / LINEAR_FILE
    vgg, lines = (read_state_dict(path) for path in paths)
    # The file of VGG16 also holds its classifier.
    state = {name: tensor for name, tensor in vgg.items() if name.startswith("features.")} | dict(lines)
    network = Lpips()
    require_fit(network, state, str(folder))
    require_finite(state, str(folder))
    network.load_state_dict(state)
    both = "".join(sha256_of(path) for path in paths)
    return network.eval(), hashlib.sha256(both.encode()).hexdigest()
