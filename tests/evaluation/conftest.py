"""A feature network, and the same images in memory and as files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from feature_networks import save_inception
from rediffuse.evaluation.features import FeatureNetwork, load_feature_network


@pytest.fixture(scope="session")
def inception(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network's file."""
    return save_inception(tmp_path_factory.mktemp("network") / "inception.pt")


@pytest.fixture(scope="session")
def network(inception: Path) -> FeatureNetwork:
    return load_feature_network(inception, device=torch.device("cpu"))


@pytest.fixture(scope="session")
def pixels() -> np.ndarray:
    """Twelve images, uint8 (12, 10, 10, 3)."""
    return np.random.default_rng(0).integers(0, 256, (12, 10, 10, 3), dtype=np.uint8)


@pytest.fixture
def folder(pixels: np.ndarray, tmp_path: Path) -> Path:
    """The same images as files."""
    path = tmp_path / "images"
    path.mkdir()
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(path / f"{index:02}.png")
    return path
