"""Features of images from a network in a TorchScript file, such as NVIDIA's translation of the Inception of 2015.

The calling convention is that of NVIDIA's `inception-2015-12-05.pt`: images are uint8 NCHW of any size, which the
network itself resizes and scales; `network(images, return_features=True)` gives the pooled features (N, D), and
`network(images, no_output_bias=True)` the probabilities (N, K) for the inception score.

A TorchScript file is a program, and loading it runs code. Use a file from a source you trust, or give its checksum.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rediffuse.errors import CheckpointError, ConfigError, InputError, nearest
from rediffuse.files import sha256_of
from rediffuse.zoo.fetch import default_cache, known_sha256, published_path
from rediffuse.zoo.published import FEATURE_NETWORKS

SPATIAL_CHANNELS = 7
"""Channels of the first branch of mixed_6 that guided-diffusion's evaluator uses; 7 * 17 * 17 = 2023 features."""
_SIDE = 299
_TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Features:
    """A network's features of N images; float32 on the CPU."""

    pooled: Tensor
    """The pooled features (N, D)."""
    probabilities: Tensor
    """The probabilities (N, K) of the classes; rows sum to 1."""
    spatial: Tensor | None
    """(N, h * w * 7), channels innermost as in guided-diffusion's statistics; None for networks of another layout."""


@dataclass(frozen=True, kw_only=True)
class FeatureNetwork:
    """A loaded network; call it with uint8 images (N, 3, H, W)."""

    compute: Callable[[Tensor], Features]
    sha256: str
    """SHA-256 of the file, in hex."""
    device: torch.device
    why_no_spatial: str
    """Why there are no spatial features and no sFID; empty if there are."""

    def __call__(self, images: Tensor) -> Features:
        with torch.inference_mode():
            return self.compute(images.to(self.device))


def find_feature_network(source: str | Path, cache: Path | None = None) -> tuple[Path, str | None]:
    """The path of a feature network, and its checksum recorded at the download (None for your own file).

    Args:
        source: a TorchScript file, or a name in `zoo.published.FEATURE_NETWORKS` that was downloaded before; this
            function downloads nothing.
        cache: the folder of downloads; None is `zoo.fetch.default_cache()`.

    Raises:
        InputError: the named network was not downloaded.
    """
    if source in FEATURE_NETWORKS:
        script = FEATURE_NETWORKS[str(source)]
        path = published_path(script, cache or default_cache())
        if not path.is_file():
            raise InputError(f"{source}: is not downloaded yet; run `rediffuse models fetch {source}`")
        return path, known_sha256(script, path)
    return Path(source), None


def load_feature_network(path: Path, *, device: torch.device, sha256: str | None = None) -> FeatureNetwork:
    """Load the file, call it once, and check whether it gives spatial features.

    Args:
        path: a TorchScript file from a source you trust: loading it runs code.
        device: the device on which it runs.
        sha256: the expected checksum, which is compared before any code of the file is run.

    Raises:
        InputError: there is no such file.
        CheckpointError: another checksum, no TorchScript, or another calling convention.
        ConfigError: there is no such device.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file{nearest(str(path), FEATURE_NETWORKS)}")
    found = sha256_of(path)
    if sha256 is not None and sha256.lower() != found:
        raise CheckpointError(f"{path}: sha256 is {found}, but {sha256} is expected; nothing of it was run")
    network = _load(path, device)
    probe = torch.arange(2 * 3 * 32 * 32).remainder(251).to(device, torch.uint8).view(2, 3, 32, 32)
    with torch.inference_mode():
        called = _checked(network, probe, path)
        why_no_spatial = _why_no_spatial(network, probe, called)
    by = _by_calls if why_no_spatial else _by_layers
    return FeatureNetwork(
        compute=lambda images: by(network, images), sha256=found, device=device, why_no_spatial=why_no_spatial
    )


def _load(path: Path, device: torch.device) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch advises against TorchScript
        try:
            network = torch.jit.load(path, map_location="cpu").eval()
        except (RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise CheckpointError(f"{path}: not a TorchScript file, or a damaged one ({reason})") from None
    try:
        return network.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device={device}: {str(error).splitlines()[0]}") from None


def _checked(network: Any, probe: Tensor, path: Path) -> Features:
    """The features of the probe, after a check that the network follows the calling convention."""
    try:
        features = _by_calls(network, probe)
    except (RuntimeError, TypeError) as error:
        reason = [line for line in str(error).splitlines() if line.strip()][-1].strip()
        raise CheckpointError(
            f"{path}: cannot be called like the Inception network, with uint8 images and return_features=True or "
            f"no_output_bias=True ({reason})"
        ) from None
    for name, values in (("return_features", features.pooled), ("no_output_bias", features.probabilities)):
        if values.ndim != 2 or len(values) != len(probe):
            raise CheckpointError(
                f"{path}: {name}=True gives {tuple(values.shape)} for {len(probe)} images; (N, D) is needed"
            )
    sums = features.probabilities.sum(dim=1)
    if not torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
        raise CheckpointError(
            f"{path}: no_output_bias=True gives rows that sum to {sums[0]:.3g}; probabilities are needed"
        )
    return features


def _why_no_spatial(network: Any, probe: Tensor, called: Features) -> str:
    """The reason why spatial features cannot be computed, or nothing.

    They come from the layers, called one by one in the order of NVIDIA's network. That is accepted only if it gives the
    same pooled features and probabilities as a call of the network.
    """
    try:
        by_layers = _by_layers(network, probe)
    except (AttributeError, RuntimeError, TypeError):
        return "it has no layers.mixed_6.conv"
    pairs = ((by_layers.pooled, called.pooled), (by_layers.probabilities, called.probabilities))
    same = all(a.shape == b.shape and (a - b).norm() <= _TOLERANCE * b.norm() for a, b in pairs)
    return "" if same else "its layers, called one by one, give other features than the network itself"


def _by_calls(network: Any, images: Tensor) -> Features:
    return Features(
        pooled=network(images, return_features=True).float().cpu(),
        probabilities=network(images, no_output_bias=True).float().cpu(),
        spatial=None,
    )


def _by_layers(network: Any, images: Tensor) -> Features:
    """All features from one pass. The layers are called one by one, since TorchScript modules do not call hooks."""
    x, spatial = _resized(images), None
    for name, layer in network.layers.named_children():
        if name == "mixed_6":
            spatial = layer.conv(x)[:, :SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)
        x = layer(x)
    if spatial is None:
        raise AttributeError("mixed_6")
    pooled = x.flatten(1)
    probabilities = F.linear(pooled, network.output.weight).softmax(dim=1)
    return Features(
        pooled=pooled.float().cpu(), probabilities=probabilities.float().cpu(), spatial=spatial.float().cpu()
    )


def _resized(images: Tensor) -> Tensor:
    """Resize uint8 (N, 3, H, W) to float (N, 3, 299, 299) in [-1, 1) as TensorFlow of 2015 and NVIDIA's network do.

    Bilinear: pixel i of the result is at i * H / 299 of the image, so corners of pixels are aligned, not their centres.
    """
    n, _, height, width = images.shape
    shifts = [1 / side - 1 / _SIDE for side in (width, height)]  # half a pixel of each; a side has length 2
    theta = torch.tensor([[1, 0, shifts[0]], [0, 1, shifts[1]]], device=images.device).expand(n, 2, 3)
    grid = F.affine_grid(theta, [n, 3, _SIDE, _SIDE], align_corners=False)
    resized = F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return (resized - 128) / 128
