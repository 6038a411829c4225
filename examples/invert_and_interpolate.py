"""Turn two images into latents, decode them again, and walk the arc between them.

python examples/invert_and_interpolate.py FOLDER [IMAGE IMAGE]

Without images, two photographs of scikit-learn are taken.
"""

import sys
from pathlib import Path

import numpy as np
import sklearn.datasets

from rediffuse.files import write_bytes
from rediffuse.images.crop import center_crop
from rediffuse.images.decode import decode as read
from rediffuse.images.encode import png_bytes
from rediffuse.images.montage import tile
from rediffuse.images.tensors import to_tensor, to_uint8
from rediffuse.sampling.config import SamplingSettings
from rediffuse.sampling.latents import decode, interpolate, invert
from rediffuse.zoo.model import load


def main(folder: Path, paths: list[str]) -> None:
    model = load("default")
    pixels = np.stack([center_crop(read(Path(path)).pixels, model.image_size) for path in paths])
    x_0 = to_tensor(pixels)
    for steps in (10, 25):
        settings = SamplingSettings(steps=steps)
        x_T = invert(model, x_0, settings)
        error = (decode(model, x_T, settings) - x_0).abs().mean()
        print(f"{steps} steps: latents of deviation {x_T.std():.2f}, back to within {127.5 * error:.1f} levels of 255")
    frames = [to_uint8(frame) for frame in interpolate(model, *x_T, settings, num_frames=8)]
    strip = np.stack([pixels[0], *frames, pixels[1]])
    write_bytes(folder / "interpolation.png", png_bytes(tile(strip, columns=len(strip))))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or sklearn.datasets.load_sample_images().filenames)
