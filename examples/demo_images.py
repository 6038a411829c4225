"""Gather images to judge: some that the embedded model makes here, and photographs that installed packages carry.

python examples/demo_images.py FOLDER
"""

import shutil
import sys
from pathlib import Path

import skimage
import sklearn.datasets
import torch

from rediffuse.diffusion import ddim
from rediffuse.diffusion.noise import PerSampleNoise
from rediffuse.files import write_bytes
from rediffuse.images.encode import png_bytes
from rediffuse.images.tensors import to_uint8
from rediffuse.zoo.model import load

SEEDS = range(6)
SCIKIT_IMAGE = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
CLOTHING = Path(__file__).parents[1] / ".." / "shared" / "data" / "clothing" / "photos"


def generated(folder: Path) -> None:
    """DDIM samples of the embedded model in 50 steps; a seed gives the same image every time."""
    model = load("default")
    side = model.image_size
    x_T = PerSampleNoise(SEEDS).normal((3, side, side))
    with torch.inference_mode():
        x_0 = ddim.sample(model.process("ddim50"), model.network, x_T)
    for seed, pixels in zip(SEEDS, to_uint8(x_0), strict=True):
        write_bytes(folder / f"seed-{seed}.png", png_bytes(pixels))


def photographs(folder: Path) -> None:
    """Real images of scikit-learn and scikit-image, and some of clothing where these lie beside the repository."""
    files = [Path(file) for file in sklearn.datasets.load_sample_images().filenames]
    files += [Path(skimage.__file__).parent / "data" / name for name in SCIKIT_IMAGE]
    files += sorted(CLOTHING.glob("*_0.*"))
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copy(file, folder / file.name)


if __name__ == "__main__":
    generated(Path(sys.argv[1]) / "generated")
    photographs(Path(sys.argv[1]) / "real")
