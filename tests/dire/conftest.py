"""A tiny random model and a folder of images for it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from golden_values import fill
from rediffuse.diffusion.config import ProcessConfig
from rediffuse.models.config import UNetConfig
from rediffuse.models.unet import UNetModel
from rediffuse.zoo.model import DiffusionModel, Provenance


def tiny_model(num_classes: int | None = None) -> DiffusionModel:
    config = UNetConfig(
        image_size=16, model_channels=32, num_res_blocks=1, channel_mult=(1, 1), num_classes=num_classes
    )
    return DiffusionModel(
        network=fill(UNetModel(config)),
        process_config=ProcessConfig(schedule="cosine", variance="fixed_large"),
        provenance=Provenance(source="test", sha256="0" * 64),
    )


@pytest.fixture(scope="session")
def model() -> DiffusionModel:
    return tiny_model()


@pytest.fixture(scope="session")
def class_model() -> DiffusionModel:
    return tiny_model(num_classes=3)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Five images, two of which differ only in their suffix, and a text file with the suffix of an image."""
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("photo.jpg", "photo.png", "sub/a.png", "sub/b.webp", "wide.bmp"):
        pixels = rng.integers(0, 256, (20, 40 if name == "wide.bmp" else 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    (folder / "notes.png").write_text("no image")
    return folder


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Five images with room for several windows of 16 px, c.png for none, e.png for one."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for name, shape in {"a": (40, 56), "b": (32, 64), "c": (15, 40), "d": (100, 50), "e": (20, 16)}.items():
        Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    return folder
