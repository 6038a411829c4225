"""Measure the reconstruction errors of a photograph and of a sample of the model.

python examples/reconstruct.py FOLDER
"""

import sys
from pathlib import Path

import sklearn.datasets
import torch

import rediffuse


def main(folder: Path) -> None:
    rediffuse.load("default").save(folder / "model")
    model = rediffuse.load(folder / "model")
    photograph = rediffuse.read_image(sklearn.datasets.load_sample_image("flower.jpg"), size=model.image_size)
    [sample] = rediffuse.sample(model, [0], rediffuse.SamplingSettings(steps=25))
    x_0 = torch.cat([photograph, sample[None]])  # (2, 3, S, S) in [-1, 1]

    settings = rediffuse.DireSettings.for_model(model, steps=20, depth=5)  # 5 of 20 steps of inversion, and back
    reconstruction = rediffuse.reconstruct(model, x_0, settings)
    errors = reconstruction.map.values  # |x_0 - x_0_hat|, (2, 3, S, S) in [0, 2]
    for name, error in zip(("photograph", "sample"), errors, strict=True):
        print(f"{name:<10}  mean error {127.5 * error.mean():.2f} levels of 255")

    # Three rows: images, reconstructions, and errors times ten.
    rows = torch.cat([x_0, reconstruction.x_0_hat, 10 * errors - 1])
    rediffuse.write_image(folder / "reconstruction.png", rows, columns=2)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
