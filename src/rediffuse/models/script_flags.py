"""Network configurations from the flags of guided-diffusion's scripts, with the scripts' defaults.

`rediffuse.diffusion.script_flags` does the same for the diffusion process.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from rediffuse.errors import ConfigError
from rediffuse.models.config import EncoderConfig, Pool, UNetConfig

NUM_CLASSES = 1000
"""Number of classes of every class-conditional network that the scripts build: those of ImageNet."""

CHANNEL_MULT: Mapping[int, tuple[float, ...]] = {
    64: (1, 2, 3, 4),
    128: (1, 1, 2, 3, 4),
    256: (1, 1, 2, 2, 4, 4),
    512: (0.5, 1, 1, 2, 2, 4, 4),
}
"""Default `channel_mult` of U-Nets and classifiers, by image size."""

SUPERRES_CHANNEL_MULT: Mapping[int, tuple[float, ...]] = {
    64: (1, 2, 3, 4),
    256: (1, 1, 2, 2, 4, 4),
    512: (1, 1, 2, 2, 4, 4),
}
"""Default `channel_mult` of super-resolution U-Nets, by the size of the large image."""


@dataclass(frozen=True, kw_only=True)
class UNetFlags:
    """The scripts' flags for a U-Net, with their names and defaults."""

    image_size: int = 64
    num_channels: int = 128
    num_res_blocks: int = 2
    num_heads: int = 4
    num_heads_upsample: int = -1
    num_head_channels: int = -1
    attention_resolutions: str = "16,8"
    """Sides of the feature maps that have attention."""
    channel_mult: str = ""
    """Multipliers, separated by commas; empty for the defaults of the image size."""
    dropout: float = 0.0
    class_cond: bool = False
    use_checkpoint: bool = False
    use_scale_shift_norm: bool = True
    resblock_updown: bool = False
    use_new_attention_order: bool = False
    learn_sigma: bool = False


@dataclass(frozen=True, kw_only=True)
class ClassifierFlags:
    """The scripts' flags for a classifier of noisy images, with their names and defaults."""

    image_size: int = 64
    classifier_width: int = 128
    classifier_depth: int = 2
    classifier_attention_resolutions: str = "32,16,8"
    classifier_use_scale_shift_norm: bool = True
    classifier_resblock_updown: bool = True
    classifier_pool: Pool = "attention"


def unet_config(flags: UNetFlags) -> UNetConfig:
    """The U-Net of these flags. Raises ConfigError where the image size has no default multipliers."""
    if flags.channel_mult:
        channel_mult = tuple(
            int(value) if value.is_integer() else value for value in _numbers("channel_mult", flags.channel_mult)
        )
    else:
        channel_mult = _default("image_size", flags.image_size, CHANNEL_MULT, ", or give channel_mult")
    return _unet_config(flags, channel_mult)


def superres_config(flags: UNetFlags) -> UNetConfig:
    """The super-resolution U-Net of these flags; their `image_size` is the scripts' `large_size`.

    Raises ConfigError where this size has no default multipliers. The scripts have no flag `channel_mult` here.
    """
    return _unet_config(flags, _default("large_size", flags.image_size, SUPERRES_CHANNEL_MULT))


def _unet_config(flags: UNetFlags, channel_mult: tuple[float, ...]) -> UNetConfig:
    return UNetConfig(
        image_size=flags.image_size,
        model_channels=flags.num_channels,
        out_channels=6 if flags.learn_sigma else 3,
        num_res_blocks=flags.num_res_blocks,
        attention_resolutions=_factors(
            "attention_resolutions", flags.attention_resolutions, flags.image_size, len(channel_mult)
        ),
        dropout=flags.dropout,
        channel_mult=channel_mult,
        num_classes=NUM_CLASSES if flags.class_cond else None,
        use_checkpoint=flags.use_checkpoint,
        num_heads=flags.num_heads,
        num_head_channels=flags.num_head_channels,
        num_heads_upsample=flags.num_heads_upsample,
        use_scale_shift_norm=flags.use_scale_shift_norm,
        resblock_updown=flags.resblock_updown,
        use_new_attention_order=flags.use_new_attention_order,
    )


def classifier_config(flags: ClassifierFlags) -> EncoderConfig:
    """The classifier of these flags. Raises ConfigError where the image size has no default multipliers."""
    channel_mult = _default("image_size", flags.image_size, CHANNEL_MULT)
    return EncoderConfig(
        image_size=flags.image_size,
        model_channels=flags.classifier_width,
        out_channels=NUM_CLASSES,
        num_res_blocks=flags.classifier_depth,
        attention_resolutions=_factors(
            "classifier_attention_resolutions",
            flags.classifier_attention_resolutions,
            flags.image_size,
            len(channel_mult),
        ),
        channel_mult=channel_mult,
        num_head_channels=64,
        use_scale_shift_norm=flags.classifier_use_scale_shift_norm,
        resblock_updown=flags.classifier_resblock_updown,
        pool=flags.classifier_pool,
    )


def _default(flag: str, size: int, defaults: Mapping[int, tuple[float, ...]], otherwise: str = "") -> tuple[float, ...]:
    """The default `channel_mult` of this size."""
    if size not in defaults:
        raise ConfigError(f"{flag}={size}: {', '.join(map(str, defaults))} are allowed{otherwise}")
    return defaults[size]


def _factors(flag: str, sides: str, image_size: int, num_levels: int) -> tuple[int, ...]:
    """Sides of feature maps as downsampling factors; sides that no feature map has are ignored."""
    if not sides:
        return ()
    factors = [image_size // max(1, int(side)) for side in _numbers(flag, sides)]
    return tuple(factor for factor in factors if factor in [2**level for level in range(num_levels)])


def _numbers(flag: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"{flag}={text!r}: numbers separated by commas are allowed") from None
