"""The images that the embedded detector is trained and judged on: photographs, and a model's own samples.

    python benchmarks/embedded_data.py --photos FOLDER --model MODEL --out FOLDER

The output has train/, validation/ and test/, each with real/ and generated/. All of it is written at the model's size
by one encoder, so that nothing but the pixels tells the classes apart. Samples come from DDPM and DDIM; DPM-Solver++ is
in test/ alone: what the detector has never seen. A second call makes only what is missing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor
from tqdm import tqdm

from rediffuse.diffusion import ddim, ddpm, dpm_solver
from rediffuse.diffusion.noise import PerSampleNoise
from rediffuse.files import write_bytes
from rediffuse.images.crop import center_crop
from rediffuse.images.decode import decode
from rediffuse.images.encode import png_bytes
from rediffuse.images.find import find_images
from rediffuse.images.tensors import to_uint8
from rediffuse.zoo.model import DiffusionModel, load

SPLITS = ("train", "validation", "test")
SAMPLERS = {"train": ("ddpm", "ddim"), "validation": ("ddpm", "ddim"), "test": ("ddpm", "ddim", "dpm_solver")}


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Make the images of both classes."""

    photos: Path
    """Folder with train/, validation/ and test/: photographs, all of which are taken but for `num_train`."""
    out: Path
    model: str = "default"
    """The model that generates: a name, a folder or a file."""
    num_train: int = 400
    """Real images for training, evenly from all; as many are generated."""
    num_validation: int = 240
    """Generated images for validation."""
    num_test: int = 288
    """Generated images for the test, over three samplers."""
    ddpm_steps: int = 40
    ddim_steps: int = 20
    dpm_solver_steps: int = 15
    batch_size: int = 64
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto takes a GPU where there is one."""

    def num_generated(self, split: str) -> int:
        """Per sampler."""
        total = {"train": self.num_train, "validation": self.num_validation, "test": self.num_test}[split]
        return total // len(SAMPLERS[split])


def main(args: Flags) -> None:
    model = load(args.model, device=args.device)
    for number, split in enumerate(SPLITS):
        write_real(args, split, model.image_size)
        for place, sampler in enumerate(SAMPLERS[split]):
            # Every image of every split has a seed of its own.
            first_seed = 1_000_000 * (number + 1) + 100_000 * place
            write_generated(args, model, split, sampler, first_seed)


def write_real(args: Flags, split: str, size: int) -> None:
    found = find_images([args.photos / split])
    if split == "train":
        found = [found[i] for i in np.linspace(0, len(found) - 1, min(args.num_train, len(found))).round().astype(int)]
    for image in tqdm(found, f"{split}, real", unit="image"):
        path = args.out / split / "real" / f"{image.name.replace('/', '-')}.png"
        if not path.exists():
            write_bytes(path, png_bytes(center_crop(decode(image.path).pixels, size)))


def write_generated(args: Flags, model: DiffusionModel, split: str, sampler: str, first_seed: int) -> None:
    folder = args.out / split / "generated" / sampler
    wanted = range(first_seed, first_seed + args.num_generated(split))
    missing = [seed for seed in wanted if not (folder / f"{seed}.png").exists()]
    with tqdm(total=len(missing), desc=f"{split}, {sampler}", unit="image") as bar:
        for seeds in batches(missing, args.batch_size):
            pixels = to_uint8(sample(args, model, sampler, seeds))
            for seed, image in zip(seeds, pixels, strict=True):
                write_bytes(folder / f"{seed}.png", png_bytes(image))
            bar.update(len(seeds))


def batches(seeds: list[int], size: int) -> Iterator[list[int]]:
    return (seeds[i : i + size] for i in range(0, len(seeds), size))


def sample(args: Flags, model: DiffusionModel, sampler: str, seeds: list[int]) -> Tensor:
    """x_0 (N, 3, S, S): each from its own seed, whatever the batch."""
    noise = PerSampleNoise(seeds)
    x_T = noise.normal((3, model.image_size, model.image_size)).to(model.device)
    with torch.inference_mode():
        match sampler:
            case "ddpm":
                return ddpm.sample(model.process(str(args.ddpm_steps)), model.network, x_T, noise)
            case "ddim":
                return ddim.sample(model.process(f"ddim{args.ddim_steps}"), model.network, x_T)
            case _:
                return dpm_solver.sample(model.process(str(args.dpm_solver_steps)), model.network, x_T)


if __name__ == "__main__":
    main(tyro.cli(Flags))
