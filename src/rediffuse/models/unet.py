"""The ADM U-Net of guided-diffusion (arXiv:2105.05233), with its state_dict names, shapes and numbers."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from rediffuse.errors import ConfigError
from rediffuse.models.config import AS_TRAINED, Preset, UNetConfig
from rediffuse.models.frequency import amplify, filter_bands, fixed_gains, is_backbone_level, preset_gains
from rediffuse.models.layers import GroupNorm, ResBlock, TimestepEmbedSequential, Upsample, conv_nd, first_norm, zeroed
from rediffuse.models.trunk import Trunk


class Denoiser(Trunk):
    """Abstract: a complete U-Net; a subclass defines the input of the first convolution."""

    config: UNetConfig

    def __init__(self, config: UNetConfig, stem_channels: int) -> None:
        super().__init__(config, stem_channels, config.num_classes)
        self.output_blocks = nn.ModuleList(self._output_blocks())
        channels = self.level_channels()[0]
        self.out = nn.Sequential(
            GroupNorm(channels), nn.SiLU(), zeroed(conv_nd(config.dims, channels, config.out_channels, 3))
        )
        self.frequency = self.gates(range(len(self.block_channels)))

    def _output_blocks(self) -> Iterator[TimestepEmbedSequential]:
        """Each level has one block more than in the encoder: its last block takes the skip from the downsampling."""
        config = self.config
        skips = list(self.block_channels)
        channels = skips[-1]
        num_heads = config.num_heads if config.num_heads_upsample == -1 else config.num_heads_upsample
        for level, width in reversed(list(enumerate(self.level_channels()))):
            for block in range(config.num_res_blocks + 1):
                layers: list[nn.Module] = [ResBlock(channels + skips.pop(), width, self.options)]
                channels = width
                if 2**level in config.attention_resolutions:
                    layers.append(self.attention(channels, num_heads))
                if level and block == config.num_res_blocks:
                    layers.append(
                        ResBlock(channels, channels, self.options, resample="up")
                        if config.resblock_updown
                        else Upsample(channels, config.conv_resample, config.dims)
                    )
                yield TimestepEmbedSequential(*layers)

    def denoise(self, x: Tensor, timesteps: Tensor, y: Tensor | None, frequency: Preset) -> Tensor:
        """x: (N, stem_channels, ...), timesteps: (N,), y: (N,) -> (N, out_channels, ...)."""
        self._check_labels(y, len(x))
        emb = self.embed(timesteps, y)
        h = x.to(self.torso_dtype)
        skips = []
        for block in self.input_blocks:
            h = block(h, emb)
            skips.append(h)
        h = self.middle_block(h, emb)
        for block in self.output_blocks:
            index = len(skips) - 1
            h, skip = self._filtered(index, h, skips.pop(), emb, frequency)
            h = block(torch.cat([h, skip], dim=1), emb)
        *_, conv = self.out
        return conv(first_norm(self.out).silu(h.to(self.head_dtype)))

    def _filtered(self, index: int, h: Tensor, skip: Tensor, emb: Tensor, preset: Preset) -> tuple[Tensor, Tensor]:
        """The backbone h and the skip connection from input block `index`, after the gate and the preset."""
        num_levels, level, dims = len(self.config.channel_mult), self.block_levels[index], self.config.dims
        if self.frequency and preset.name != "off":
            skip = self.frequency[index](skip, emb)
        gains = preset_gains(preset, level, num_levels)
        if gains is not None:
            skip = filter_bands(skip, fixed_gains(gains, skip), dims)
        if preset.backbone != 1 and is_backbone_level(level, num_levels):
            h = amplify(h, preset.backbone)
        return h, skip

    def _check_labels(self, y: Tensor | None, num_images: int) -> None:
        num_classes = self.config.num_classes
        if num_classes is None:
            if y is not None:
                raise ConfigError("labels y were given, but this model has no classes (num_classes=None)")
            return
        if y is None:
            raise ConfigError(f"this model is conditioned on {num_classes} classes: labels y are needed")
        if y.shape != (num_images,):
            raise ConfigError(f"labels y of shape {tuple(y.shape)}: one per image, ({num_images},), is needed")
        # On an accelerator this check would synchronise with the device; there the embedding itself raises.
        if y.device.type == "cpu" and not ((y >= 0) & (y < num_classes)).all():
            raise ConfigError(f"labels y={y.tolist()}: 0 to {num_classes - 1} are allowed")


class UNetModel(Denoiser):
    """The ADM U-Net: predicts eps, x_0, x_prev, v or flow, and the variance where it is learned."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config, config.in_channels)

    def forward(
        self, x_t: Tensor, timesteps: Tensor, y: Tensor | None = None, *, frequency: Preset = AS_TRAINED
    ) -> Tensor:
        """One prediction per image.

        x_t: (N, in_channels, ...), usually around [-1, 1] plus noise; every side a multiple of the downsampling factor.
        timesteps: (N,), whole or fractional; y: (N,) int64 labels, needed if and only if the config has classes.
        frequency: a filter of the skip connections (`models.frequency`).
        Returns (N, out_channels, ...) in float32. Raises ConfigError where size, channels or labels do not fit.
        """
        self.check_image(x_t)
        return self.denoise(x_t, timesteps, y, frequency)
