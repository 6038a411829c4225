"""The configurations of the networks, as dataclasses. Imports no torch."""

import math
from dataclasses import dataclass
from typing import Literal, Self, get_args

from rediffuse.errors import ConfigError, nearest, shown
from rediffuse.records import require_range

Kind = Literal["unet", "superres", "encoder"]
"""The three kinds of network: denoiser, denoiser that also takes a small image, classifier of noisy images."""
Precision = Literal["fp32", "fp16", "bf16"]
PrecisionChoice = Literal["auto", "fp32", "fp16", "bf16"]
"""A precision, or `auto`: that with which the device computes fastest (`zoo.precision`)."""
BatchSize = int | Literal["auto"]
"""A number of images per call of the network, or `auto`: see `zoo.batch_size`."""

Pool = Literal["adaptive", "attention", "spatial", "spatial_v2"]
PresetName = Literal["trained", "off", "freeu", "sharpen", "lowpass"]

LARGEST_IMAGE = 16384
"""Largest side of an image that a network can be trained for, in pixels."""
_MOST_CHANNELS = 65536
"""Most channels of a feature map. Larger numbers would overflow the sizes of torch's tensors."""
_MOST_LEVELS = 16
_RANGES = {
    "image_size": (1, LARGEST_IMAGE),
    "in_channels": (1, 4096),
    "model_channels": (1, _MOST_CHANNELS),
    "out_channels": (1, 1_000_000),
    "num_res_blocks": (1, 32),
    "num_classes": (1, 1_000_000),
}
"""The least and the largest allowed value of a field. The largest ones are far beyond every published network."""

_GROUPS = (1, 2, 4, 8, 16, 32)
"""Allowed numbers of channel groups: the divisors of 32, since every feature map has a multiple of 32 channels."""


@dataclass(frozen=True, kw_only=True)
class FrequencyConfig:
    """The spectral residual gates on the skip connections (`models.frequency`)."""

    num_bands: int = 8
    """Radial frequency bands; each has its own gain."""
    num_groups: int = 32
    """Groups of channels that share their gains."""
    hidden: int = 16
    """Width of the hidden layer between the timestep embedding and the gains."""

    def __post_init__(self) -> None:
        require_range("num_bands", self.num_bands, 2, 4096)
        if self.num_groups not in _GROUPS:
            raise ConfigError(f"num_groups={shown(self.num_groups)}: {', '.join(map(str, _GROUPS))} are allowed")
        require_range("hidden", self.hidden, 1, _MOST_CHANNELS)


@dataclass(frozen=True)
class Preset:
    """A filter of the skip connections for one call of a U-Net; needs no training (`models.frequency`).

    As text: `trained` (apply the network's own gates, if it has any), `off` (skip these gates), `freeu`, `freeu:1.2`
    (with a factor for the backbone), `sharpen` or `lowpass`.
    """

    name: PresetName = "trained"
    backbone: float = 1.0
    """FreeU's backbone factor b; 1 changes nothing."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a preset from text such as `freeu:1.2`. Raises ConfigError for an unknown name or b outside (0, 2]."""
        word, _, factor = text.partition(":")
        names: dict[str, PresetName] = {name: name for name in get_args(PresetName)}
        if word not in names or (factor and word != "freeu"):
            allowed = f"{', '.join(names)} and freeu:B"
            raise ConfigError(f"frequency={text}: {allowed} are allowed{nearest(word, names)}")
        try:
            backbone = float(factor or 1)
        except ValueError:
            backbone = math.nan
        if not 0 < backbone <= 2:
            raise ConfigError(f"frequency={text}: the backbone factor B has to be more than 0 and at most 2")
        return cls(names[word], backbone)


AS_TRAINED = Preset()


@dataclass(frozen=True, kw_only=True)
class _TrunkConfig:
    """The fields that the U-Net and its encoder half share, with guided-diffusion's names."""

    image_size: int
    """Side of the training images, in pixels; other multiples of the downsampling factor work too."""
    in_channels: int = 3
    """Channels of the images."""
    model_channels: int = 128
    """Channels at full resolution, before `channel_mult`."""
    out_channels: int = 3
    """Twice the image's channels if the variance is learned; for a classifier the number of classes."""
    num_res_blocks: int = 2
    """Residual blocks per resolution."""
    attention_resolutions: tuple[int, ...] = ()
    """Downsampling factors with attention: 1 is full resolution, 2 half of it."""
    dropout: float = 0.0
    """Dropout in the residual blocks, from 0 to below 1."""
    channel_mult: tuple[float, ...] = (1, 2, 4, 8)
    """Multiplier of `model_channels` per resolution; fractions are allowed."""
    conv_resample: bool = True
    """Resample with a convolution rather than by pooling and repetition alone."""
    dims: int = 2
    """1 for signals, 2 for images, 3 for volumes (whose depth is never resampled)."""
    num_heads: int = 1
    """Attention heads, where `num_head_channels` does not give their number."""
    num_head_channels: int = -1
    """Channels per attention head, instead of a number of heads; -1 for none."""
    use_scale_shift_norm: bool = False
    """The timestep scales and shifts the normalised features, rather than being added to them."""
    resblock_updown: bool = False
    """Resample inside residual blocks."""
    use_new_attention_order: bool = False
    """Split the channels of attention into q, k and v first, and then into heads."""
    use_checkpoint: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    frequency: FrequencyConfig | None = None
    """Spectral residual gates: on every skip connection of a U-Net, after every level of an encoder."""

    def __post_init__(self) -> None:
        if self.dims not in (1, 2, 3):
            raise ConfigError(f"dims={shown(self.dims)}: 1, 2 or 3 are allowed")
        for name, (least, most) in _RANGES.items():
            if getattr(self, name, None) is not None:
                require_range(name, getattr(self, name), least, most)
        if not self.channel_mult:
            raise ConfigError("channel_mult=(): at least one resolution is needed")
        if len(self.channel_mult) > _MOST_LEVELS:
            raise ConfigError(f"channel_mult: {len(self.channel_mult)} resolutions; at most {_MOST_LEVELS} are allowed")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout={self.dropout}: at least 0 and less than 1 is needed")
        for factor in self.attention_resolutions:
            if factor not in self.downsampling_factors:
                allowed = ", ".join(map(str, self.downsampling_factors))
                raise ConfigError(
                    f"attention_resolutions={shown(self.attention_resolutions)}: "
                    f"{shown(factor)} is not a downsampling factor of this model ({allowed})"
                )
        for mult in self.channel_mult:
            require_range("channel_mult", mult, 0, _MOST_CHANNELS / self.model_channels)
            channels = int(mult * self.model_channels)
            if channels < 1 or channels % 32:
                raise ConfigError(
                    f"channel_mult={shown(self.channel_mult)}: {mult} * {self.model_channels} = {channels} channels, "
                    "but group normalisation needs a multiple of 32"
                )

    @property
    def downsampling_factors(self) -> tuple[int, ...]:
        """The downsampling factors 1, 2, 4, ..., one per resolution."""
        return tuple(2**level for level in range(len(self.channel_mult)))


@dataclass(frozen=True, kw_only=True)
class UNetConfig(_TrunkConfig):
    """The ADM U-Net, a denoiser. A super-resolution U-Net has the same config."""

    num_classes: int | None = None
    """Number of classes that the network is conditioned on; None for an unconditional network."""
    num_heads_upsample: int = -1
    """Attention heads in the decoder, where their number differs; -1 for no difference."""


@dataclass(frozen=True, kw_only=True)
class EncoderConfig(_TrunkConfig):
    """The encoder half of the U-Net with a pooled head: a classifier of noisy images."""

    pool: Pool = "adaptive"
    """Pooling of the last feature map into one vector."""


USUAL_BATCH_SIZE = 16
"""The number of images per call where none is measured."""


def check_batch_size(given: BatchSize) -> None:
    """Raise ConfigError for a number below 1."""
    if given != "auto":
        require_range("batch_size", given, 1)
