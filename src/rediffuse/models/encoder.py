"""The encoder half of the U-Net with a pooled head: the noisy-image classifier of arXiv:2105.05233, section 4."""

import torch
from torch import Tensor, nn

from rediffuse.errors import ConfigError
from rediffuse.models.attention import AttentionPool2d
from rediffuse.models.config import EncoderConfig
from rediffuse.models.layers import GroupNorm, conv_nd, zeroed
from rediffuse.models.trunk import Trunk

HIDDEN_FEATURES = 2048
"""Width of the two-layer heads of the spatial pools."""


class EncoderUNetModel(Trunk):
    """A classifier of noisy images: one logit per class.

    The head pools the last feature map by averaging (pool `adaptive`) or by attention (`attention`, for one image size
    only), or it is a two-layer network on the averages of all feature maps (`spatial`, `spatial_v2`).
    """

    config: EncoderConfig

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config, config.in_channels)
        self.pools_every_block = config.pool in ("spatial", "spatial_v2")
        features = sum(self.block_channels) + self.block_channels[-1]
        self.out = {
            "adaptive": self._average_head,
            "attention": self._attention_head,
            "spatial": lambda: _two_layers(features, config.out_channels, nn.ReLU()),
            "spatial_v2": lambda: _two_layers(features, config.out_channels, GroupNorm(HIDDEN_FEATURES), nn.SiLU()),
        }[config.pool]()
        # The last block of every level: the next one, if any, belongs to the next level.
        levels = [*self.block_levels, None]
        self.gated_blocks = [i for i in range(len(self.block_levels)) if levels[i] != levels[i + 1]]
        self.frequency = self.gates(self.gated_blocks)

    def _average_head(self) -> nn.Sequential:
        channels, dims = self.block_channels[-1], self.config.dims
        average = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}[dims](1)
        head = zeroed(conv_nd(dims, channels, self.config.out_channels, 1))
        return nn.Sequential(GroupNorm(channels), nn.SiLU(), average, head, nn.Flatten())

    def _attention_head(self) -> nn.Sequential:
        config, channels = self.config, self.block_channels[-1]
        if config.dims != 2:
            raise ConfigError(f"pool='attention' with dims={config.dims}: only dims=2 is allowed")
        if config.num_head_channels == -1:
            raise ConfigError("pool='attention' needs num_head_channels, the channels per head")
        side = config.image_size // config.downsampling_factors[-1]
        pool = AttentionPool2d(side, channels, config.num_head_channels, config.out_channels)
        return nn.Sequential(GroupNorm(channels), nn.SiLU(), pool)

    def forward(self, x_t: Tensor, timesteps: Tensor) -> Tensor:
        """x_t: (N, in_channels, ...), timesteps: (N,) -> logits (N, out_channels), float32.

        Raises ConfigError where size or channels do not fit.
        """
        self.check_image(x_t)
        emb = self.embed(timesteps)
        h = x_t.to(self.torso_dtype)
        pooled = []
        for index, block in enumerate((*self.input_blocks, self.middle_block)):
            h = block(h, emb)
            if self.frequency and index in self.gated_blocks:
                h = self.frequency[self.gated_blocks.index(index)](h, emb)
            if self.pools_every_block:
                pooled.append(h.to(self.head_dtype).flatten(2).mean(dim=-1))
        return self.out(torch.cat(pooled, dim=1) if self.pools_every_block else h.to(self.head_dtype))


def _two_layers(features: int, outputs: int, *between: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(features, HIDDEN_FEATURES), *between, nn.Linear(HIDDEN_FEATURES, outputs))
