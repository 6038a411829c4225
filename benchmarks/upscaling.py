"""Compare the enlargements of a super-resolution model and of bicubic interpolation with held-out images.

    python benchmarks/upscaling.py --model runs/superres/model --photos FOLDER

The measure is PSNR in decibels, over all values of an image in [0, 255], and its mean over the images. A sample is one
of many images that fit the small one; bicubic interpolation is closer to their mean, which is an advantage in PSNR.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from script import read_flags
from torch.nn import functional as F

from rediffuse.images.crop import center_crop
from rediffuse.images.decode import decode
from rediffuse.images.find import find_images
from rediffuse.images.tensors import to_tensor, to_uint8
from rediffuse.sampling.config import SamplingSettings
from rediffuse.sampling.sample import upscale
from rediffuse.sampling.small import small_size
from rediffuse.zoo.model import load


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Compare enlargements."""

    model: str
    """A folder that `rediffuse train superres` wrote."""
    photos: Path
    """Images that the model was not trained on."""
    num_images: int = 48
    """Number of images, evenly spread over the folder."""
    steps: int = 25
    """Number of DDIM steps."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto takes a GPU where there is one."""


def main(args: Flags) -> None:
    model = load(args.model, device=args.device)
    size, small = model.image_size, small_size(model, None)
    found = find_images([args.photos])
    chosen = np.linspace(0, len(found) - 1, min(args.num_images, len(found))).round().astype(int)
    images = np.stack([center_crop(decode(found[index].path).pixels, size) for index in chosen])
    low_res = F.interpolate(to_tensor(images), (small, small), mode="area")
    settings = SamplingSettings(sampler="ddim", steps=args.steps)
    sampled = to_uint8(torch.stack(list(upscale(model, low_res, settings, seeds=range(len(images))))))
    enlarged = np.stack([bicubic(pixels, size) for pixels in to_uint8(low_res)])
    ours, theirs = psnr(sampled, images), psnr(enlarged, images)
    print(f"{len(images)} images, {small} to {size} px, DDIM in {args.steps} steps")
    print(f"model    {ours.mean():6.2f} dB")
    print(f"bicubic  {theirs.mean():6.2f} dB")
    print(f"the model is closer for {(ours > theirs).sum()} of {len(images)}")


def bicubic(pixels: np.ndarray, size: int) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC))


def psnr(given: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(N,) decibels."""
    error = ((given.astype(float) - truth) ** 2).mean(axis=(1, 2, 3))
    return 10 * np.log10(255**2 / np.maximum(error, 1e-12))


if __name__ == "__main__":
    main(read_flags(Flags))
