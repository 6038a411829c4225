"""Collect images to judge: samples of the embedded model, photographs that installed packages include, and, if the
folder of shared data is beside the repository, images of other generators and more photographs.

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
SHARED = Path(__file__).parents[1] / ".." / "shared" / "data"


def generated(folder: Path) -> None:
    """DDIM samples of the embedded model in 50 steps; the same seed gives the same image."""
    images = rediffuse.sample(rediffuse.load("default"), SEEDS, rediffuse.SamplingSettings(sampler="ddim", steps=50))
    for seed, x_0 in zip(SEEDS, images, strict=True):
        rediffuse.write_image(folder / f"seed-{seed}.png", x_0)


def of_other_generators(folder: Path) -> None:
    """Three images of each family of generators in the shared data, with the family's name."""
    for family in SHARED.glob("wild/generated/*"):
        for file in sorted(family.iterdir())[:3]:
            copy(file, folder / f"{family.name}_{file.name}")


def photographs(folder: Path) -> None:
    """Photographs of scikit-learn and scikit-image, and some of clothing and by cameras in the shared data."""
    files = [Path(file) for file in sklearn.datasets.load_sample_images().filenames]
    files += [Path(skimage.__file__).parent / "data" / name for name in SCIKIT_IMAGE]
    files += [*SHARED.glob("clothing/photos/*_0.*"), *sorted(SHARED.glob("wild/real/cameras/*"))[:10]]
    for file in files:
        copy(file, folder / file.name)


def copy(source: Path, destination: Path) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, destination)


if __name__ == "__main__":
    generated(Path(sys.argv[1]) / "generated")
    of_other_generators(Path(sys.argv[1]) / "generated" / "other")
    photographs(Path(sys.argv[1]) / "real")
