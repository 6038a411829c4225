"""Sample the embedded model with three samplers from the same noise.

python examples/sample.py FOLDER
"""

import sys
from pathlib import Path

import torch

import rediffuse

SEEDS = range(4)
SETTINGS = (
    rediffuse.SamplingSettings(sampler="ddpm", steps=50),
    rediffuse.SamplingSettings(sampler="ddim", steps=25),
    rediffuse.SamplingSettings(sampler="dpm_solver", steps=15),
)


def main(folder: Path) -> None:
    model = rediffuse.load("default")
    for settings in SETTINGS:
        images = torch.stack(list(rediffuse.sample(model, SEEDS, settings)))  # (4, 3, S, S) in [-1, 1]
        rediffuse.write_image(folder / f"{settings.sampler}.png", images)
        # A seed gives the same image in any batch, except for rounding in convolutions.
        [alone] = rediffuse.sample(model, [3], settings)
        assert (alone - images[3]).abs().max() < 1e-3


if __name__ == "__main__":
    main(Path(sys.argv[1]))
