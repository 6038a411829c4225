"""Invert images, reconstruct them, and measure the reconstruction error (DIRE, arXiv:2303.09295)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from rediffuse.diffusion import trajectory
from rediffuse.diffusion.process import SamplerOptions
from rediffuse.dire.bands import BandProfile, band_profile, without_middle
from rediffuse.dire.settings import DireSettings, require_same
from rediffuse.errors import ConfigError
from rediffuse.images.windows import Window
from rediffuse.zoo.labels import Labels, class_labels
from rediffuse.zoo.model import DiffusionModel


@dataclass(frozen=True, kw_only=True, repr=False)
class DireMap:
    """The reconstruction error of N images as an image: |x_0 - x_0_hat|."""

    values: Tensor
    """(N, 3, S, S) float32 in [0, 2]."""
    settings: DireSettings

    def __post_init__(self) -> None:
        side = self.settings.image_size
        if self.values.dtype != torch.float32 or self.values.shape[1:] != (3, side, side):
            raise ConfigError(f"DireMap: values are {_describe(self.values)}; (N, 3, {side}, {side}) float32 is needed")
        if not ((self.values >= 0) & (self.values <= 2)).all():  # NaN fails too
            raise ConfigError(f"DireMap: values span {_span(self.values)}; numbers from 0 to 2 are allowed")

    def __repr__(self) -> str:
        """Shape and settings, but not the pixels."""
        return f"DireMap(values={_describe(self.values)}, settings={self.settings})"


@dataclass(frozen=True, kw_only=True, repr=False)
class Reconstruction:
    """N images with their latents and reconstructions; float32, all on one device."""

    x_0: Tensor
    """(N, 3, S, S) in [-1, 1]: the images."""
    x_T: Tensor
    """(N, 3, S, S): the latents, which are the result of the inversion after `settings.depth` steps."""
    x_0_hat: Tensor
    """(N, 3, S, S): the reconstructions; in [-1, 1] if the settings clip."""
    settings: DireSettings
    second: Tensor | None = None
    """(N, 3, S, S): the reconstructions of the images without middle frequencies, if `settings.second_view` is set."""
    windows: tuple[Window, ...] = ()
    """The places of the N windows in their image, for `crop="windows:N"`; empty for whole images."""

    def __post_init__(self) -> None:
        assert len(self.windows) in (0, len(self.x_0))
        assert self.x_0.shape == self.x_T.shape == self.x_0_hat.shape
        assert (self.second is not None) == self.settings.second_view
        assert self.second is None or self.second.shape == self.x_0.shape

    def __repr__(self) -> str:
        """Shapes and settings, but not the pixels."""
        names = ("x_0", "x_T", "x_0_hat", "second") if self.second is not None else ("x_0", "x_T", "x_0_hat")
        tensors = "".join(f"{name}={_describe(getattr(self, name))}, " for name in names)
        return f"Reconstruction({tensors}settings={self.settings})"

    def __len__(self) -> int:
        return len(self.x_0)

    def __getitem__(self, images: slice) -> "Reconstruction":
        """Some of the images, or of the windows; the index is a slice, so that the batch dimension is kept."""
        return self._each(lambda tensor: tensor[images], self.windows[images])

    def to(self, device: torch.device | str) -> "Reconstruction":
        return self._each(lambda tensor: tensor.to(device), self.windows)

    @property
    def error(self) -> Tensor:
        """D = x_0 - x_0_hat, signed, (N, 3, S, S)."""
        return self.x_0 - self.x_0_hat

    @cached_property
    def profile(self) -> BandProfile:
        """The error by frequency band; it is computed once, and used by features and evidence."""
        return band_profile(self.x_0, self.x_0_hat)

    @property
    def map(self) -> DireMap:
        """|D|; without clipping an error above 2 counts as 2, as in the original's images.

        Raises:
            ConfigError: a reconstruction holds NaN (half precision overflowed).
        """
        return DireMap(values=self.error.abs().clamp(max=2), settings=self.settings)

    @property
    def is_finite(self) -> Tensor:
        """(N,) bool: which reconstructions are finite; half precision can overflow."""
        both = self.x_0_hat if self.second is None else torch.cat([self.x_0_hat, self.second], dim=1)
        return torch.isfinite(both).flatten(1).all(dim=1)

    def _each(self, function: Callable[[Tensor], Tensor], windows: tuple[Window, ...]) -> "Reconstruction":
        x_0, x_T, x_0_hat = (function(tensor) for tensor in (self.x_0, self.x_T, self.x_0_hat))
        second = None if self.second is None else function(self.second)
        return replace(self, x_0=x_0, x_T=x_T, x_0_hat=x_0_hat, second=second, windows=windows)


def reconstruct(
    model: DiffusionModel, x_0: Tensor, settings: DireSettings | None = None, *, labels: Labels | None = None
) -> Reconstruction:
    """x_0 -> x_T by DDIM inversion -> x_0_hat by DDIM sampling, over the same timesteps (DIRE, section 3.2).

    With half precision only the convolutions and the attention of the network are in it: normalisation, embeddings and
    the arithmetic of the sampler are float32, and the model is not changed. The result is deterministic. The batch of
    an image affects its result only by rounding in convolutions (about 1e-5 in x_0_hat).

    Args:
        model: a model whose network is in eval mode.
        x_0: (N, 3, S, S) float32 in [-1, 1], S = settings.image_size; moved to the model's device. Images, or for
            `crop="windows:N"` the windows of images.
        settings: settings for this model (`DireSettings.for_model`); None is `DireSettings.for_model(model)`.
        labels: N classes from 0 to num_classes - 1, a tensor or a sequence; needed by a class-conditional model, not
            allowed for others.

    Returns:
        The reconstruction, on the model's device.

    Raises:
        ConfigError: `x_0` or `labels` have another shape, type or range, or the network is in training mode.
        SettingsMismatch: the settings were made for another model.
    """
    return Reconstructor(model, settings or DireSettings.for_model(model))(x_0, labels)


class Reconstructor:
    """`reconstruct` for many batches: settings are checked, and weights converted, once.

    Args:
        model: see `reconstruct`.
        settings: see `reconstruct`.

    Raises:
        ConfigError, SettingsMismatch: see `reconstruct`.
    """

    def __init__(self, model: DiffusionModel, settings: DireSettings) -> None:
        _check_model(model, settings)
        self.model, self.settings = model, settings
        self._process = model.process(settings.respacing)
        self._network = model.denoiser(settings.frequency, settings.precision)

    def __call__(self, x_0: Tensor, labels: Labels | None = None) -> Reconstruction:
        """See `reconstruct`."""
        model, settings = self.model, self.settings
        _check_images(x_0, settings)
        x_0 = x_0.to(model.device)
        y = class_labels(model, labels, len(x_0))
        options = SamplerOptions(clip_denoised=settings.clip, conditioning={} if y is None else {"y": y})
        x_T, x_0_hat = self._round_trip(x_0, options)
        second = self._round_trip(without_middle(x_0), options)[1] if settings.second_view else None
        return Reconstruction(x_0=x_0, x_T=x_T, x_0_hat=x_0_hat, settings=settings, second=second)

    def _round_trip(self, images: Tensor, options: SamplerOptions) -> tuple[Tensor, Tensor]:
        settings, process, network = self.settings, self._process, self._network
        with torch.inference_mode():
            inversion = trajectory.invert(
                settings.solver, process, network, images, options, grid=settings.grid, depth=settings.depth
            )
            x_T = trajectory.last(inversion)
            x_0_hat = trajectory.last(
                trajectory.sample(settings.solver, process, network, x_T, options, depth=settings.depth)
            )
        # Tensors made in inference mode cannot be used in a training later (of a detector on the map); copies can.
        return x_T.clone(), x_0_hat.clone()


def joined(parts: Sequence[Reconstruction], windows: tuple[Window, ...] = ()) -> Reconstruction:
    """The rows of several reconstructions of the same settings as one, which has these windows."""
    x_0, x_T, x_0_hat = (torch.cat([getattr(part, name) for part in parts]) for name in ("x_0", "x_T", "x_0_hat"))
    second = [part.second for part in parts if part.second is not None]
    return replace(
        parts[0], x_0=x_0, x_T=x_T, x_0_hat=x_0_hat, second=torch.cat(second) if second else None, windows=windows
    )


def network_calls(model: DiffusionModel, settings: DireSettings) -> int:
    """Network calls per image for inversion and reconstruction of each view and of each of the N windows.

    They are counted by running the solver. An image with fewer windows than N needs fewer calls.
    """
    process = model.process(settings.respacing)
    paths = (
        trajectory.inversion_path(process, settings.grid, settings.depth),
        trajectory.sampling_path(process, settings.depth),
    )
    calls = sum(trajectory.num_network_calls(settings.solver, process, path) for path in paths)
    return calls * (2 if settings.second_view else 1) * (settings.num_windows or 1)


def _check_model(model: DiffusionModel, settings: DireSettings) -> None:
    of_the_model = replace(settings, image_size=model.image_size, model_sha256=model.provenance.sha256)
    require_same(given=settings, expected=of_the_model, owner="the model")
    model.require_rgb_unet("reconstruct images")
    if model.network.training:
        raise ConfigError("model.network is in training mode, where dropout is random: call .eval() first")


def _check_images(x_0: Tensor, settings: DireSettings) -> None:
    side = settings.image_size
    if x_0.dtype != torch.float32 or x_0.shape[1:] != (3, side, side):
        raise ConfigError(f"x_0: given {_describe(x_0)}; (N, 3, {side}, {side}) float32 is allowed")
    if not len(x_0):
        raise ConfigError("x_0: given no image; at least 1 is needed")
    if not (x_0.abs() <= 1).all():
        raise ConfigError(f"x_0: values span {_span(x_0)}; numbers from -1 to 1 are allowed")


def _describe(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _span(tensor: Tensor) -> str:
    return f"{tensor.min().item():.6g} to {tensor.max().item():.6g}"
