"""Collect images to judge: samples of the embedded model, and photographs that installed packages include.

python examples/demo_images.py FOLDER
"""

import shutil
import sys
from pathlib import Path

import skimage
import sklearn.datasets

import rediffuse

SEEDS = range(6)
SCIKIT_IMAGE = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
CLOTHING = Path(__file__).parents[1] / ".." / "shared" / "data" / "clothing" / "photos"


def generated(folder: Path) -> None:
    """DDIM samples of the embedded model in 50 steps; the same seed gives the same image."""
    images = rediffuse.sample(rediffuse.load("default"), SEEDS, rediffuse.SamplingSettings(sampler="ddim", steps=50))
    for seed, x_0 in zip(SEEDS, images, strict=True):
        rediffuse.write_image(folder / f"seed-{seed}.png", x_0)


def photographs(folder: Path) -> None:
    """Photographs of scikit-learn and scikit-image, and some of clothing if their folder is beside the repository."""
    files = [Path(file) for file in sklearn.datasets.load_sample_images().filenames]
    files += [Path(skimage.__file__).parent / "data" / name for name in SCIKIT_IMAGE]
    files += sorted(CLOTHING.glob("*_0.*"))
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copy(file, folder / file.name)


if __name__ == "__main__":
    generated(Path(sys.argv[1]) / "generated")
    photographs(Path(sys.argv[1]) / "real")
