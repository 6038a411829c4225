"""Keep a model in a folder, and see what a photograph and one of the model's own samples lose on their way through it.

python examples/reconstruct.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np
import sklearn.datasets
import torch

import rediffuse
from rediffuse.files import write_bytes
from rediffuse.images.crop import center_crop
from rediffuse.images.encode import png_bytes
from rediffuse.images.montage import tile
from rediffuse.images.tensors import to_tensor, to_uint8


def main(folder: Path) -> None:
    rediffuse.load("default").save(folder / "model")
    model = rediffuse.load(folder / "model")
    photograph = center_crop(sklearn.datasets.load_sample_image("flower.jpg"), model.image_size)
    [sample] = rediffuse.sample(model, [0], rediffuse.SamplingSettings(steps=25))
    x_0 = torch.stack([to_tensor(photograph[None])[0], sample])  # (2, 3, S, S) in [-1, 1]

    settings = rediffuse.DireSettings.for_model(model, steps=20, depth=5)  # a quarter of the way to noise, and back
    reconstruction = rediffuse.reconstruct(model, x_0, settings)
    errors = reconstruction.map.values  # |x_0 - x_0_hat|, (2, 3, S, S) in [0, 2]
    for name, error in zip(("photograph", "sample"), errors, strict=True):
        print(f"{name:<10}  loses {127.5 * error.mean():.2f} levels of 255")

    # Below each other: images, what came back, and the error, ten times as strong.
    rows = [x_0, reconstruction.x_0_hat, (10 * errors - 1).clamp(max=1)]
    pictures = np.concatenate([to_uint8(row) for row in rows])
    write_bytes(folder / "reconstruction.png", png_bytes(tile(pictures, columns=2)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
