"""Radial spectra: how loud images, their reconstructions and the errors between them are at every frequency."""

import torch
from matplotlib.axes import Axes
from torch import Tensor

from rediffuse.dire.bands import radial_spectrum
from rediffuse.models.frequency import highest

# Told apart by every kind of colour vision (Okabe and Ito, 2008).
LINES = {"input": ("#000000", "-"), "reconstruction": ("#56b4e9", "--"), "error": ("#d55e00", "-")}


def draw_spectra(axes: Axes, x_0: Tensor, x_0_hat: Tensor) -> None:
    """The mean radial spectra of images, reconstructions and errors.

    Args:
        axes: cleared and free.
        x_0: (N, 3, S, S) in [-1, 1].
        x_0_hat: its reconstruction, shaped like x_0.
    """
    axes.set_xlim(0, highest(2))
    for (name, (colour, style)), images in zip(LINES.items(), (x_0, x_0_hat, x_0 - x_0_hat), strict=True):
        rho, power = radial_spectrum(images)
        # Below the rounding to 8 bits there is nothing to see: (2/255)^2 / 12 = 5e-6.
        axes.semilogy(rho[1:], torch.clamp(power.mean(dim=0)[1:], min=1e-7), style, color=colour, label=name)
    axes.set_xlabel("frequency, cycles per pixel")
    axes.legend(fontsize=8, frameon=False)
