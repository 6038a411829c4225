"""Radial spectra: the power of images, their reconstructions and the errors at every frequency."""

import torch
from matplotlib.axes import Axes
from torch import Tensor

from rediffuse.dire.bands import radial_spectrum
from rediffuse.models.frequency import highest

# These colours can be distinguished with every type of colour vision (Okabe and Ito, 2008).
LINES = {"input": ("#000000", "-"), "reconstruction": ("#56b4e9", "--"), "error": ("#d55e00", "-")}


def draw_spectra(axes: Axes, x_0: Tensor, x_0_hat: Tensor) -> None:
    """Draw the mean radial spectra of images, reconstructions and errors.

    Args:
        axes: empty axes.
        x_0: (N, 3, S, S) in [-1, 1].
        x_0_hat: its reconstruction, shaped like x_0.
    """
    axes.set_xlim(0, highest(2))
    for (name, (colour, style)), images in zip(LINES.items(), (x_0, x_0_hat, x_0 - x_0_hat), strict=True):
        rho, power = radial_spectrum(images)
        # Power below that of rounding to 8 bits, (2/255)^2 / 12 = 5e-6, has no meaning.
        axes.semilogy(rho[1:], torch.clamp(power.mean(dim=0)[1:], min=1e-7), style, color=colour, label=name)
    axes.set_xlabel("frequency, cycles per pixel")
    axes.legend(fontsize=8, frameon=False)
