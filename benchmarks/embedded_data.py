"""Make the training and test images of the embedded detector: photographs, and samples of a model.

    python benchmarks/embedded_data.py --photos FOLDER --model MODEL --out FOLDER

The output has train/, validation/ and test/, each with real/ and generated/. All images are written at the model's size
by the same encoder, so that the classes differ only in their pixels. Samples are made by DDPM and DDIM; those of
DPM-Solver++ are only in test/, as a sampler that the detector was not trained on. A second call makes missing images.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from script import read_flags
from tqdm import tqdm

from rediffuse.files import write_bytes
from rediffuse.images.crop import center_crop
from rediffuse.images.decode import decode
from rediffuse.images.encode import png_bytes
from rediffuse.images.find import find_images
from rediffuse.images.tensors import to_uint8
from rediffuse.sampling.config import Sampler, SamplingSettings
from rediffuse.sampling.sample import sample
from rediffuse.zoo.model import DiffusionModel, load

SPLITS = ("train", "validation", "test")
SAMPLERS: dict[str, tuple[Sampler, ...]] = {
    "train": ("ddpm", "ddim"),
    "validation": ("ddpm", "ddim"),
    "test": ("ddpm", "ddim", "dpm_solver"),
}


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Make the images of both classes."""

    photos: Path
    """Folder of photographs with train/, validation/ and test/; of train/ only `num_train` are used."""
    out: Path
    model: str = "default"
    """The model that generates: a name, a folder or a file."""
    num_train: int = 400
    """Number of real training images, evenly spread, and of generated ones."""
    num_validation: int = 240
    """Number of generated images for validation."""
    num_test: int = 288
    """Number of generated images for the test, of all three samplers together."""
    ddpm_steps: int = 40
    ddim_steps: int = 20
    dpm_solver_steps: int = 15
    seed: int = 0
    """Random seed of the choice of real training images, and of the generated images."""
    batch_size: int = 64
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto takes a GPU where there is one."""

    def num_generated(self, split: str) -> int:
        """Per sampler."""
        total = {"train": self.num_train, "validation": self.num_validation, "test": self.num_test}[split]
        return total // len(SAMPLERS[split])

    def sampling(self, sampler: Sampler) -> SamplingSettings:
        steps = {"ddpm": self.ddpm_steps, "ddim": self.ddim_steps, "dpm_solver": self.dpm_solver_steps}
        return SamplingSettings(sampler=sampler, steps=steps[sampler])


def main(args: Flags) -> None:
    model = load(args.model, device=args.device)
    for number, split in enumerate(SPLITS):
        write_real(args, split, model.image_size)
        for place, sampler in enumerate(SAMPLERS[split]):
            # Every image of every split has a different seed.
            first_seed = 10_000_000 * args.seed + 1_000_000 * (number + 1) + 100_000 * place
            write_generated(args, model, split, sampler, first_seed)


def write_real(args: Flags, split: str, size: int) -> None:
    found = find_images([args.photos / split])
    if split == "train":
        evenly = np.linspace(0, len(found) - 1, min(args.num_train, len(found))).round().astype(int)
        found = [found[(i + args.seed) % len(found)] for i in evenly]
    for image in tqdm(found, f"{split}, real", unit="image"):
        path = args.out / split / "real" / f"{image.name.replace('/', '-')}.png"
        if not path.exists():
            write_bytes(path, png_bytes(center_crop(decode(image.path).pixels, size)))


def write_generated(args: Flags, model: DiffusionModel, split: str, sampler: Sampler, first_seed: int) -> None:
    folder = args.out / split / "generated" / sampler
    wanted = range(first_seed, first_seed + args.num_generated(split))
    missing = [seed for seed in wanted if not (folder / f"{seed}.png").exists()]
    if not missing:
        return
    images = sample(model, missing, args.sampling(sampler), batch_size=args.batch_size)
    bar = tqdm(images, f"{split}, {sampler}", total=len(missing), unit="image")
    for seed, x_0 in zip(missing, bar, strict=True):
        write_bytes(folder / f"{seed}.png", png_bytes(to_uint8(x_0)))


if __name__ == "__main__":
    main(read_flags(Flags))
