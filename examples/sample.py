"""Sample the embedded model with three samplers from the same noise, and look at the way to one image.

python examples/sample.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np

from rediffuse.files import write_bytes
from rediffuse.images.encode import png_bytes
from rediffuse.images.montage import tile
from rediffuse.images.tensors import to_uint8
from rediffuse.sampling.config import SamplingSettings
from rediffuse.sampling.sample import denoise, moments, sample
from rediffuse.zoo.model import load

SEEDS = range(4)
SAMPLERS = (
    SamplingSettings(sampler="ddpm", steps=50),
    SamplingSettings(sampler="ddim", steps=25),
    SamplingSettings(sampler="dpm_solver", steps=15),
)


def main(folder: Path) -> None:
    model = load("default")
    for settings in SAMPLERS:
        images = np.stack([to_uint8(x_0) for x_0 in sample(model, SEEDS, settings)])
        write_bytes(folder / f"{settings.sampler}.png", png_bytes(tile(images)))
        # A seed gives the same image in any batch, but for how convolutions round.
        [alone] = sample(model, [3], settings)
        assert np.abs(to_uint8(alone).astype(int) - images[3]).max() <= 1

    settings = SamplingSettings(sampler="ddim", steps=25)
    way = moments(denoise(model, [0], settings), settings.steps, num_moments=8)
    seen = np.stack([to_uint8(step.x_0[0]) for step in way])  # what the model takes the noise for, earlier and later
    write_bytes(folder / "way.png", png_bytes(tile(seen, columns=len(seen))))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
