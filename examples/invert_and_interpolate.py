"""Invert two images to latents, decode them again, and make the images between them by spherical interpolation.

python examples/invert_and_interpolate.py FOLDER [IMAGE IMAGE]

Without images, two photographs of scikit-learn are used.
"""

import sys
from pathlib import Path

import sklearn.datasets
import torch

import rediffuse


def main(folder: Path, paths: list[str]) -> None:
    model = rediffuse.load("default")
    x_0 = rediffuse.read_image(paths, size=model.image_size)  # (2, 3, S, S) in [-1, 1]
    for steps in (10, 25):
        settings = rediffuse.SamplingSettings(steps=steps)
        x_T = rediffuse.invert(model, x_0, settings)
        error = (rediffuse.decode(model, x_T, settings) - x_0).abs().mean()
        print(f"{steps} steps: latents of deviation {x_T.std():.2f}, mean error {127.5 * error:.1f} levels of 255")
    frames = list(rediffuse.interpolate(model, *x_T, settings, num_frames=8))
    strip = torch.stack([x_0[0], *frames, x_0[1]])
    rediffuse.write_image(folder / "interpolation.png", strip, columns=len(strip))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or sklearn.datasets.load_sample_images().filenames)
