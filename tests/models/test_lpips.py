"""LPIPS: the arithmetic of its paper, and the names and files of its published weights."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lpips_weights import write_lpips
from rediffuse.errors import CheckpointError, InputError
from rediffuse.models.lpips import LINEAR_FILE, VGG16_FILE, Lpips, read_lpips

CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
"""The indices of VGG16's convolutions in torchvision's file."""
ENDS_OF_STAGES = (2, 7, 14, 21, 28)


def images(seed: int, count: int = 2) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lpips(tmp_path_factory.mktemp("lpips"))


def expected(folder: Path, x: Tensor, y: Tensor) -> Tensor:
    """The distances by layer, written out for single images (3, S, S)."""
    vgg, lines = torch.load(folder / VGG16_FILE), torch.load(folder / LINEAR_FILE)
    outputs: list[list[Tensor]] = []
    for image in (x, y):
        channels = zip(image, (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450), strict=True)
        h = torch.stack([(channel - mean) / std for channel, mean, std in channels])
        outputs.append([])
        for index in CONVOLUTIONS:
            if index - 1 in (4, 9, 16, 23):
                h = h.unfold(1, 2, 2).unfold(2, 2, 2).amax(dim=(-2, -1))
            weight, bias = vgg[f"features.{index}.weight"], vgg[f"features.{index}.bias"]
            h = F.conv2d(h[None], weight, bias, padding=1)[0].clamp(min=0)
            if index in ENDS_OF_STAGES:
                outputs[-1].append(h / h.norm(dim=0))
    distances = []
    for layer, (of_x, of_y) in enumerate(zip(*outputs, strict=True)):
        weight = lines[f"lin{layer}.model.1.weight"].flatten()
        distances.append(torch.einsum("c,chw->hw", weight, (of_x - of_y) ** 2).mean())
    return torch.stack(distances)


def test_distances_are_those_of_the_paper(folder: Path) -> None:
    network, _ = read_lpips(folder)
    given = network(images(1), images(2))
    assert given.shape == (2, 5)
    of_each = [expected(folder, x, y) for x, y in zip(images(1), images(2), strict=True)]
    torch.testing.assert_close(given, torch.stack(of_each), rtol=1e-4, atol=1e-6)
    assert (given > 0).all()
    assert (network(images(1), images(1)) == 0).all()
    torch.testing.assert_close(network(images(2), images(1)), given)


def test_the_tensors_have_their_published_names_and_shapes() -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in Lpips().state_dict().items()}
    widths = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
    published = {f"lin{layer}.model.1.weight": (1, width, 1, 1) for layer, width in enumerate((64, 128, 256, 512, 512))}
    for index, before, width in zip(CONVOLUTIONS, (3, *widths), widths, strict=False):
        published[f"features.{index}.weight"] = (width, before, 3, 3)
        published[f"features.{index}.bias"] = (width,)
    assert shapes == published


def test_a_missing_or_wrong_file_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"{VGG16_FILE}: there is no such file"):
        read_lpips(tmp_path)
    (tmp_path / VGG16_FILE).symlink_to(folder / VGG16_FILE)
    torch.save({"lin0.model.1.weight": torch.zeros(1, 64, 1, 1)}, tmp_path / LINEAR_FILE)
    with pytest.raises(CheckpointError, match=r"does not fit this Lpips: 4 missing: lin1\.model\.1\.weight"):
        read_lpips(tmp_path)
