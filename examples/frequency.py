"""Read the reconstruction error of two photographs by frequency band, under presets for the skip connections.

python examples/frequency.py FOLDER [IMAGE IMAGE]

Without images, two photographs of scikit-learn are taken.
"""

import io
import sys
from pathlib import Path

import numpy as np
import sklearn.datasets
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import rediffuse
from rediffuse.dire.bands import band_profile
from rediffuse.files import write_bytes
from rediffuse.images.crop import center_crop
from rediffuse.images.decode import decode
from rediffuse.images.tensors import to_tensor
from rediffuse.report.spectrum import draw_spectra


def main(folder: Path, paths: list[str]) -> None:
    model = rediffuse.load("default")
    x_0 = to_tensor(np.stack([center_crop(decode(Path(path)).pixels, model.image_size) for path in paths]))
    presets = ("trained", "freeu", "lowpass")
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    print("log(error / image energy) by band, coarse to fine")
    for axes, preset in zip(figure.subplots(1, len(presets), sharey=True), presets, strict=True):
        settings = rediffuse.DireSettings.for_model(model, depth=5, grid="aligned", frequency=preset, second_view=True)
        seen = rediffuse.reconstruct(model, x_0, settings)
        assert seen.second is not None  # the settings want it
        for view, x_0_hat in (("", seen.x_0_hat), (", without its middle bands", seen.second)):
            energies = band_profile(x_0, x_0_hat).energies.mean(dim=0)
            print(f"{preset + view:<32}", *(f"{energy:6.2f}" for energy in energies))
        draw_spectra(axes, x_0, seen.x_0_hat)
        axes.set_title(preset)
    content = io.BytesIO()
    FigureCanvasAgg(figure).print_png(content)
    write_bytes(folder / "spectra.png", content.getvalue())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or sklearn.datasets.load_sample_images().filenames)
