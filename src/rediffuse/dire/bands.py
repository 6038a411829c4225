"""The reconstruction error by frequency band: its relative energy, and the coherence of image and reconstruction.

With D = x_0 - x_0_hat, X and R the spectra of x_0 and x_0_hat, and B_k the radial hats of `models/frequency.py`:

    e_k = log((|B_k D|^2 + eps) / (|B_k X|^2 + eps))                                  relative error
    c_k = (Re<B_k X, B_k R> + eps) / sqrt((|B_k X|^2 + eps) (|B_k R|^2 + eps))        coherence

|.|^2 is the mean square over the pixels and colour channels of the band's image, computed from its spectrum (Parseval).
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from rediffuse.models.frequency import NUM_BANDS, filter_bands, radial_bands

EPS = 1e-6
"""A band with a mean square below this counts as empty. Rounding to 8 bits gives (2/255)^2 / 12 = 5e-6 in all bands
together. In c it acts like a component of both images: c is 1 for equal images, also in empty bands, and at most 1."""

MIDDLE = slice(3, 6)
"""Of `NUM_BANDS` bands, those that diffusion models restore worst in photographs (FIRE, arXiv:2412.07140)."""


@dataclass(frozen=True, kw_only=True)
class BandProfile:
    """Relative error, coherence, and the image's own energy per band, from the lowest band to the highest."""

    energies: Tensor
    """e, (N, K): log of the ratio of the error's energy to the image's; 0 if they are equal."""
    coherences: Tensor
    """c, (N, K) in [-1, 1]: 1 if reconstruction and image are equal up to a factor, 0 if they are uncorrelated."""
    image: Tensor
    """log(|B_k X|^2 + eps), (N, K): the energies of the image, as `log_band_energies` computes them."""
    powers: Tensor
    """|X|^2, |R|^2 and |D|^2 of the half spectra, the mean over channels, (N, 3, H, W//2+1); see `radial_means`."""

    @property
    def num_bands(self) -> int:
        return self.energies.shape[1]


def band_profile(x_0: Tensor, x_0_hat: Tensor, num_bands: int = NUM_BANDS) -> BandProfile:
    """Relative error, coherence, and the image's own energy per band.

    Args:
        x_0: (N, C, H, W) in [-1, 1]; the energies of the channels are averaged.
        x_0_hat: its reconstruction, shaped like x_0.
        num_bands: K, from frequency 0 to the highest frequency, that of the diagonal.

    Returns:
        float32 on the device of `x_0`. The numbers of an image do not depend on the rest of the batch.
    """
    assert x_0.shape == x_0_hat.shape
    assert x_0.ndim == 4
    # The spectrum of D is computed from D, since X - R would have the rounding errors of two large spectra.
    images = torch.stack([x_0.float(), x_0_hat.float(), x_0.float() - x_0_hat.float()], dim=1)
    spectra = _spectrum(images)  # (N, 3, C, H, W//2+1)
    X, R = spectra[:, 0], spectra[:, 1]
    common = (X.real * R.real + X.imag * R.imag).mean(dim=1)
    powers, weights = _power(spectra), _weights(x_0, num_bands)
    means = torch.einsum("nihw,khw->nik", torch.cat([powers, common[:, None]], dim=1), weights)  # (N, 4, K)
    image, returned, error = (means[:, :3] + EPS).unbind(dim=1)
    coherences = (means[:, 3] + EPS) / (image * returned).sqrt()
    return BandProfile(
        energies=torch.log(error / image),
        coherences=coherences.clamp(-1, 1),
        image=torch.log(image),
        powers=powers,
    )


def log_band_energies(images: Tensor, num_bands: int = NUM_BANDS) -> Tensor:
    """log(|B_k X|^2 + eps) of images alone, (N, C, H, W) -> (N, K) float32; see `band_profile`."""
    return torch.log(torch.einsum("nhw,khw->nk", _power(_spectrum(images)), _weights(images, num_bands)) + EPS)


def radial_means(powers: Tensor) -> Tensor:
    """The mean power at every radial frequency, over rings with a width of one cycle per longer side.

    Args:
        powers: of half spectra, (N, H, W//2+1), W even, such as `BandProfile.powers`.

    Returns:
        (N, R). Ring r has the frequency r / max(H, W), in cycles per pixel. The power of white noise is its variance at
        every frequency.
    """
    height, width = powers.shape[-2], 2 * (powers.shape[-1] - 1)
    ring, sizes = _rings(height, width, powers.device)
    counted = (powers * _counts(width, powers.device)).flatten(1)
    return counted.new_zeros(len(powers), len(sizes)).index_add_(1, ring.flatten(), counted) / sizes


@lru_cache(maxsize=64)
def _rings(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The ring of each number of a half spectrum, (H, W//2+1), and the size of each ring of the full one, (R,)."""
    with torch.inference_mode(False):  # as in `radial_bands`
        rho = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width))
        ring = (rho * max(height, width)).round().long().to(device)
        counts = _counts(width, device).expand_as(ring)
        return ring, torch.bincount(ring.flatten(), counts.flatten())


def band_maps(error: Tensor, num_bands: int = NUM_BANDS) -> Tensor:
    """D_k = irfft2(B_k rfft2(D)): split the error into bands.

    Args:
        error: D, (N, C, H, W).

    Returns:
        (N, K, C, H, W) float32; the sum over K is D.
    """
    bands = _bands(error, num_bands)  # (K, H, W//2+1)
    spectrum = _spectrum(error)[:, None] * bands[:, None]  # (N, K, C, H, W//2+1)
    return torch.fft.irfft2(spectrum, s=error.shape[-2:], norm="ortho")


def without_middle(x_0: Tensor) -> Tensor:
    """Images (N, C, H, W) in [-1, 1] without their bands `MIDDLE`, clipped to [-1, 1]: FIRE's second view."""
    gains = x_0.new_zeros(1, 1, NUM_BANDS)
    gains[..., MIDDLE] = -1
    return filter_bands(x_0, gains).clamp(-1, 1)


def _bands(images: Tensor, num_bands: int) -> Tensor:
    return radial_bands(tuple(images.shape[-2:]), num_bands, device=images.device)


def _spectrum(images: Tensor) -> Tensor:
    # Always float32: half-precision transforms need sizes that are powers of two, and bfloat16 has none.
    return torch.fft.rfft2(images.float(), norm="ortho")


def _power(spectra: Tensor) -> Tensor:
    """|F|^2 as a mean over channels; (..., C, H, W//2+1) -> (..., H, W//2+1)."""
    return (spectra.real.square() + spectra.imag.square()).mean(dim=-3)


def _weights(images: Tensor, num_bands: int) -> Tensor:
    """B_k^2 times the multiplicity of each column of the half spectrum, per pixel; (K, H, W//2+1)."""
    height, width = images.shape[-2:]
    return _cached_weights(height, width, num_bands, images.device)


@lru_cache(maxsize=64)
def _cached_weights(height: int, width: int, num_bands: int, device: torch.device) -> Tensor:
    bands = radial_bands((height, width), num_bands, device=device)
    with torch.inference_mode(False):  # as in `radial_bands`
        return bands.square() * _counts(width, device) / (height * width)


def _counts(width: int, device: torch.device) -> Tensor:
    """How often each column of a half spectrum occurs in the full spectrum, (W//2+1,)."""
    counts = torch.full((width // 2 + 1,), 2.0, device=device)
    counts[0] = 1
    if width % 2 == 0:
        counts[-1] = 1
    return counts
