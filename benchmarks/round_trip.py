"""Measure reconstruction errors by solver and number of network calls, and print a table and draw a figure.

python benchmarks/round_trip.py --photos FOLDER --figure docs/images/round_trip.png
"""

from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib.pyplot as plt
from script import read_flags

from rediffuse import DiffusionModel, DireSettings, load, read_image, reconstruct
from rediffuse.dire.reconstruct import network_calls
from rediffuse.images.find import find_images

STEPS = (5, 10, 20, 50)
SOLVERS = {
    "ddim, the original's grid": {"solver": "ddim", "grid": "compat"},
    "ddim": {"solver": "ddim"},
    "dpm_solver": {"solver": "dpm_solver"},
    "heun": {"solver": "heun"},
    "ddim, karras": {"solver": "ddim", "spacing": "karras"},
    "dpm_solver, karras": {"solver": "dpm_solver", "spacing": "karras"},
    "heun, karras": {"solver": "heun", "spacing": "karras"},
}


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Measure the round trip of photographs through a model."""

    photos: Path
    """Folder of photographs."""
    model: str = "default"
    """The model, as an argument of `rediffuse.load`."""
    num_images: int = 32
    """Number of photographs, evenly spread over the folder."""
    figure: Path | None = None
    """Path of the figure."""


def main(flags: Flags) -> None:
    """Print the table: root mean square of x_0_hat - x_0, in units of [-1, 1]."""
    model = load(flags.model)
    found = find_images([flags.photos])
    files = found[:: max(1, len(found) // flags.num_images)][: flags.num_images]
    x_0 = read_image([file.path for file in files], size=model.image_size)
    lines = {name: [round_trip(model, x_0, name, steps) for steps in STEPS] for name in SOLVERS}
    print(f"| solver | {' | '.join(f'{steps} steps' for steps in STEPS)} |\n| --- |{' --- |' * len(STEPS)}")
    for name, points in lines.items():
        print(f"| {name} | {' | '.join(f'{error:.4f} ({calls} calls)' for calls, error in points)} |")
    if flags.figure is not None:
        draw(lines, flags.figure)


def round_trip(model: DiffusionModel, x_0, name: str, steps: int) -> tuple[int, float]:
    """Network calls per image, and the root mean square of the reconstruction error."""
    settings = DireSettings.for_model(model, grid="aligned", steps=steps)
    settings = replace(settings, **SOLVERS[name])
    error = reconstruct(model, x_0, settings).error
    return network_calls(model, settings), error.square().mean().sqrt().item()


def draw(lines: dict[str, list[tuple[int, float]]], path: Path) -> None:
    """Error against network calls, both logarithmic."""
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for name, points in lines.items():
        calls, errors = zip(*points, strict=True)
        axes.loglog(calls, errors, "--" if "karras" in name else "-", marker="o", markersize=4, label=name)
    axes.set_xlabel("network calls per image, inversion and reconstruction")
    axes.set_ylabel("RMS of x_0_hat - x_0")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main(read_flags(Flags))
