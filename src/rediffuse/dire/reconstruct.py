"""Invert images, reconstruct them, and measure the reconstruction error (DIRE, arXiv:2303.09295)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from rediffuse.diffusion import trajectory
from rediffuse.diffusion.process import SamplerOptions
from rediffuse.dire.bands import BandProfile, band_profile, without_middle
from rediffuse.dire.settings import AUTOENCODER, DireSettings, facts_of, require_same
from rediffuse.errors import ConfigError
from rediffuse.images.windows import Window
from rediffuse.transfer import to_device
from rediffuse.zoo.labels import Labels, class_labels
from rediffuse.zoo.model import DiffusionModel
from rediffuse.zoo.pipelines.networks import PipelineNetwork


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
    """(N, 3, S, S): the noise, which is the result of the inversion after `settings.depth` steps; of a latent model
    (N, C, s, s)."""
    x_0_hat: Tensor
    """(N, 3, S, S): the reconstructions; in [-1, 1] if the settings clip."""
    settings: DireSettings
    second: Tensor | None = None
    """(N, 3, S, S): the reconstructions of the images without middle frequencies, if `settings.second_view` is set."""
    windows: tuple[Window, ...] = ()
    """The places of the N windows in their image, for `crop="windows:N"`; empty for whole images."""
    z_0: Tensor | None = None
    """(N, C, s, s): the latents of the images; None for a model of images."""
    z_0_hat: Tensor | None = None
    """(N, C, s, s): the reconstructed latents, of which `x_0_hat` is decoded; with `solver="autoencoder"` equal to
    `z_0`, those of the first autoencoder."""
    lpips: Tensor | None = None
    """(N, 5): the distances of the reconstructions by layer (`models.lpips`); None for a model without LPIPS."""

    def __post_init__(self) -> None:
        assert len(self.windows) in (0, len(self.x_0))
        assert self.x_0.shape == self.x_0_hat.shape
        assert self.x_T.shape == (self.x_0 if self.z_0 is None else self.z_0).shape
        assert (self.z_0 is None) == (self.z_0_hat is None)
        assert (self.second is not None) == self.settings.second_view
        assert self.second is None or self.second.shape == self.x_0.shape

    def __repr__(self) -> str:
        """Shapes and settings, but not the pixels."""
        tensors = "".join(f"{name}={_describe(tensor)}, " for name, tensor in self.tensors.items())
        return f"Reconstruction({tensors}settings={self.settings})"

    def __len__(self) -> int:
        return len(self.x_0)

    def __getitem__(self, images: slice) -> "Reconstruction":
        """Some of the images, or of the windows; the index is a slice, so that the batch dimension is kept."""
        return self._each(lambda tensor: tensor[images], self.windows[images])

    def to(self, device: torch.device | str) -> "Reconstruction":
        return self._each(lambda tensor: tensor.to(device), self.windows)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Those that it has, by the names of their fields."""
        names = ("x_0", "x_T", "x_0_hat", "second", "z_0", "z_0_hat", "lpips")
        return {name: tensor for name in names if (tensor := getattr(self, name)) is not None}

    @property
    def error(self) -> Tensor:
        """D = x_0 - x_0_hat, signed, (N, 3, S, S)."""
        return self.x_0 - self.x_0_hat

    @cached_property
    def profile(self) -> BandProfile:
        """The error by frequency band; it is computed once, and used by features and evidence."""
        return band_profile(self.x_0, self.x_0_hat)

    @property
    def latent_error(self) -> Tensor | None:
        """z_0 - z_0_hat, signed, (N, C, s, s); None for a model of images."""
        return None if self.z_0 is None or self.z_0_hat is None else self.z_0 - self.z_0_hat

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
        tensors: dict[str, Any] = {name: function(tensor) for name, tensor in self.tensors.items()}
        return replace(self, windows=windows, **tensors)


def reconstruct(
    model: DiffusionModel, x_0: Tensor, settings: DireSettings | None = None, *, labels: Labels | None = None
) -> Reconstruction:
    """x_0 -> x_T by DDIM inversion -> x_0_hat by DDIM sampling, over the same timesteps (DIRE, section 3.2).

    With half precision only the convolutions and the attention of the network are in it: normalisation, embeddings and
    the arithmetic of the sampler are float32, and the model is not changed; the network of a pipeline is in autocast. A
    latent model inverts and samples latents between its encoder and decoder, which stay float32. The result is
    deterministic. The batch of an image affects its result only by rounding in convolutions (about 1e-5 in x_0_hat).

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
        if settings.solver == AUTOENCODER:
            self._reconstruct = self._autoencode
        else:
            self._process = model.process(settings.respacing)
            self._denoiser = model.denoiser(settings, settings.precision)
            self._reconstruct = self._round_trip
        self._is_stopped = False

    def stop(self) -> None:
        """Let the calls in other threads end with an error, before their next call of the network."""
        self._is_stopped = True

    def __call__(self, x_0: Tensor, labels: Labels | None = None) -> Reconstruction:
        """See `reconstruct`."""
        model, settings = self.model, self.settings
        _check_images(x_0, settings)
        x_0 = to_device(x_0, model.device)
        y = class_labels(model, labels, len(x_0))
        conditioning = {} if y is None else {"y": y}
        options = SamplerOptions(clip_denoised=settings.clip and model.autoencoder is None, conditioning=conditioning)
        made: dict[str, Any] = self._reconstruct(x_0, options)
        made["lpips"] = model.lpips(x_0, made["x_0_hat"])
        second = self._reconstruct(without_middle(x_0), options)["x_0_hat"] if settings.second_view else None
        return Reconstruction(x_0=x_0, settings=settings, second=second, **made)

    def _network(self, x_t: Tensor, timesteps: Tensor, **conditioning: Any) -> Tensor:
        if self._is_stopped:
            raise RuntimeError("the work was stopped")
        return self._denoiser(x_t, timesteps, **conditioning)

    def _autoencode(self, images: Tensor, options: SamplerOptions) -> dict[str, Tensor]:
        x_0_hat, z = self.model.autoencode(images, clip=self.settings.clip)
        return {"x_T": z, "x_0_hat": x_0_hat, "z_0": z, "z_0_hat": z}

    def _round_trip(self, images: Tensor, options: SamplerOptions) -> dict[str, Tensor]:
        model, settings, process, network = self.model, self.settings, self._process, self._network
        with torch.inference_mode():
            start = model.encode(images)
            inversion = trajectory.invert(
                settings.solver, process, network, start, options, grid=settings.grid, depth=settings.depth
            )
            x_T = trajectory.last(inversion)
            end = trajectory.last(
                trajectory.sample(settings.solver, process, network, x_T, options, depth=settings.depth)
            )
            made = {"x_T": x_T, "x_0_hat": model.decode(end, clip=settings.clip)}
            made |= {} if model.autoencoder is None else {"z_0": start, "z_0_hat": end}
        # Tensors made in inference mode cannot be used in a training later (of a detector on the map); copies can.
        return {name: tensor.clone() for name, tensor in made.items()}


def joined(parts: Sequence[Reconstruction], windows: tuple[Window, ...] = ()) -> Reconstruction:
    """The rows of several reconstructions of the same settings as one, which has these windows."""
    tensors: dict[str, Any] = {name: torch.cat([part.tensors[name] for part in parts]) for name in parts[0].tensors}
    return replace(parts[0], windows=windows, **tensors)


def network_calls(model: DiffusionModel, settings: DireSettings) -> int:
    """Network calls per image for inversion and reconstruction of each view and of each of the N windows.

    They are counted by running the solver; a pass through autoencoders alone counts as one. An image with fewer windows
    than N needs fewer calls.
    """
    if settings.solver == AUTOENCODER:
        calls = 1
    else:
        process = model.process(settings.respacing)
        paths = (
            trajectory.inversion_path(process, settings.grid, settings.depth),
            trajectory.sampling_path(process, settings.depth),
        )
        calls = sum(trajectory.num_network_calls(settings.solver, process, path) for path in paths)
        if isinstance(model.network, PipelineNetwork):
            calls *= model.network.calls_per_step(settings.guidance_scale)
    return calls * (2 if settings.second_view else 1) * (settings.num_windows or 1)


def _check_model(model: DiffusionModel, settings: DireSettings) -> None:
    require_same(given=settings, expected=replace(settings, **facts_of(model)), owner="the model")
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
