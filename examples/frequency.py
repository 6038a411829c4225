"""Print and plot the reconstruction error of two photographs by frequency band, with presets for the skip connections.

python examples/frequency.py FOLDER [IMAGE IMAGE]

Without images, two photographs of scikit-learn are used.
"""

import sys
from pathlib import Path

import sklearn.datasets
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import rediffuse

PRESETS = ("trained", "freeu", "lowpass")


def main(folder: Path, paths: list[str]) -> None:
    model = rediffuse.load("default")
    x_0 = rediffuse.read_image(paths, size=model.image_size)
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel="frequency band, coarse to fine", ylabel="log(error / image energy)")
    print(f"{axes.get_ylabel()} by {axes.get_xlabel()}")
    for preset in PRESETS:
        settings = rediffuse.DireSettings.for_model(model, depth=5, grid="aligned", frequency=preset, second_view=True)
        reconstruction = rediffuse.reconstruct(model, x_0, settings)
        assert reconstruction.second is not None  # because of second_view=True
        for view, x_0_hat in (("", reconstruction.x_0_hat), (", without its middle bands", reconstruction.second)):
            energies = rediffuse.band_profile(x_0, x_0_hat).energies.mean(dim=0)  # (K,), mean of the images
            print(f"{preset + view:<32}", *(f"{energy:6.2f}" for energy in energies))
            axes.plot(energies, "--" if view else "-", label=preset + view)
    axes.legend(fontsize="x-small")
    FigureCanvasAgg(figure).print_png(folder / "bands.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or sklearn.datasets.load_sample_images().filenames)
