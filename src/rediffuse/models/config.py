"""What a network is built from, as data that needs no torch."""

from dataclasses import dataclass
from typing import Literal

from rediffuse.errors import ConfigError

Kind = Literal["unet", "superres", "encoder"]
"""The three networks: noise to image, noise and small image to large image, noisy image to class."""
Pool = Literal["adaptive", "attention", "spatial", "spatial_v2"]


@dataclass(frozen=True, kw_only=True)
class _TrunkConfig:
    """What the U-Net and its encoder half share. Names are guided-diffusion's."""

    image_size: int
    """Side of the images it is trained on, in pixels; other sizes that the downsampling divides run too."""
    in_channels: int = 3
    model_channels: int = 128
    """Channels at full resolution, before `channel_mult`."""
    out_channels: int = 3
    """Twice the image's channels where the variance is learned; the number of classes of a classifier."""
    num_res_blocks: int = 2
    """Residual blocks per resolution."""
    attention_resolutions: tuple[int, ...] = ()
    """Downsampling factors at which attention stands: 1 is full resolution, 2 half of it."""
    dropout: float = 0.0
    channel_mult: tuple[float, ...] = (1, 2, 4, 8)
    """Multiplier of `model_channels` per resolution; fractions are allowed."""
    conv_resample: bool = True
    dims: int = 2
    """1 for signals, 2 for images, 3 for volumes (whose depth is never resampled)."""
    num_heads: int = 1
    num_head_channels: int = -1
    """Channels per head; where given it decides the number of heads."""
    use_scale_shift_norm: bool = False
    resblock_updown: bool = False
    use_new_attention_order: bool = False
    use_checkpoint: bool = False
    """Recompute activations in the backward pass: less memory, more time."""

    def __post_init__(self) -> None:
        if self.dims not in (1, 2, 3):
            raise ConfigError(f"dims={self.dims}: 1, 2 or 3 are allowed")
        for name in ("image_size", "in_channels", "model_channels", "out_channels", "num_res_blocks"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: at least 1 is needed")
        if not self.channel_mult:
            raise ConfigError("channel_mult=(): at least one resolution is needed")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout={self.dropout}: from 0 up to, not including, 1 is allowed")
        for factor in self.attention_resolutions:
            if factor not in self.downsampling_factors:
                allowed = ", ".join(map(str, self.downsampling_factors))
                raise ConfigError(
                    f"attention_resolutions={self.attention_resolutions}: "
                    f"{factor} is not a downsampling factor of this model ({allowed})"
                )
        for mult in self.channel_mult:
            channels = int(mult * self.model_channels)
            if channels < 1 or channels % 32:
                raise ConfigError(
                    f"channel_mult={self.channel_mult}: {mult} * {self.model_channels} = {channels} channels, "
                    "but group normalisation needs a multiple of 32"
                )

    @property
    def downsampling_factors(self) -> tuple[int, ...]:
        """1, 2, 4, ... one per resolution."""
        return tuple(2**level for level in range(len(self.channel_mult)))


@dataclass(frozen=True, kw_only=True)
class UNetConfig(_TrunkConfig):
    """The ADM U-Net: eps (and variance) of an image under noise. A super-resolution U-Net takes the same config."""

    num_classes: int | None = None
    """Number of classes it is conditioned on, if any."""
    num_heads_upsample: int = -1
    """Heads in the decoder, where they differ from `num_heads`."""


@dataclass(frozen=True, kw_only=True)
class EncoderConfig(_TrunkConfig):
    """The encoder half of the U-Net with a pooled head: a classifier of noisy images."""

    pool: Pool = "adaptive"
    """How the last feature map becomes one vector."""
