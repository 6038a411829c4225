"""The part that the U-Net and the encoder share: timestep embedding, downsampling path, middle block."""

from collections.abc import Iterable, Iterator
from typing import Self

import torch
from torch import Tensor, nn

from rediffuse.errors import ConfigError
from rediffuse.models.attention import AttentionBlock, count_heads
from rediffuse.models.config import EncoderConfig, UNetConfig
from rediffuse.models.frequency import GATES, FrequencyGate
from rediffuse.models.layers import (
    NUM_GROUPS,
    BlockOptions,
    Downsample,
    ResBlock,
    TimestepEmbedSequential,
    conv_nd,
    timestep_embedding,
)

MOST_EMBEDDINGS = 256
"""Timesteps whose embeddings a network keeps, with what follows from them: for ADM at 256 px they take 0.2 GB."""


class Trunk(nn.Module):
    """Abstract: builds `time_embed`, `label_emb`, `input_blocks` and `middle_block`, and checks the shapes of inputs.

    stem_channels: input channels of the first convolution; num_classes: None for a network without a label embedding.
    """

    def __init__(self, config: UNetConfig | EncoderConfig, stem_channels: int, num_classes: int | None = None) -> None:
        super().__init__()
        self.config = config
        self.options = BlockOptions(
            emb_channels=4 * config.model_channels,
            dropout=config.dropout,
            use_scale_shift_norm=config.use_scale_shift_norm,
            dims=config.dims,
            use_checkpoint=config.use_checkpoint,
        )
        emb_channels = self.options.emb_channels
        self.time_embed = nn.Sequential(
            nn.Linear(config.model_channels, emb_channels), nn.SiLU(), nn.Linear(emb_channels, emb_channels)
        )
        if num_classes is not None:
            self.label_emb = nn.Embedding(num_classes, emb_channels)
        self.block_channels: list[int] = []
        """Number of output channels of every input block."""
        self.block_levels: list[int] = []
        """Level of every input block: 0 is full resolution, 1 half of it, and so on."""
        self.remembers_embeddings = False
        """Whether one timestep for all images is embedded only once in all calls; only for networks on a CPU whose
        weights do not change (`models.inference`)."""
        self._embeddings: dict[float, Tensor] = {}
        self.input_blocks = nn.ModuleList(self._input_blocks(stem_channels))
        channels = self.block_channels[-1]
        self.middle_block = TimestepEmbedSequential(
            ResBlock(channels, channels, self.options),
            self.attention(channels, config.num_heads),
            ResBlock(channels, channels, self.options),
        )

    def level_channels(self) -> list[int]:
        """Channels at every resolution, full resolution first."""
        return [int(mult * self.config.model_channels) for mult in self.config.channel_mult]

    def attention(self, channels: int, num_heads: int) -> AttentionBlock:
        """An attention block with the config's options."""
        return AttentionBlock(
            channels,
            count_heads(channels, num_heads, self.config.num_head_channels),
            use_new_attention_order=self.config.use_new_attention_order,
            use_checkpoint=self.config.use_checkpoint,
        )

    def _input_blocks(self, stem_channels: int) -> Iterator[TimestepEmbedSequential]:
        config = self.config
        level_channels = self.level_channels()
        channels = level_channels[0]
        yield self._block(0, channels, conv_nd(config.dims, stem_channels, channels, 3))
        for level, width in enumerate(level_channels):
            if level:
                down = (
                    ResBlock(channels, channels, self.options, resample="down")
                    if config.resblock_updown
                    else Downsample(channels, config.conv_resample, config.dims)
                )
                yield self._block(level, channels, down)
            for _ in range(config.num_res_blocks):
                layers: list[nn.Module] = [ResBlock(channels, width, self.options)]
                channels = width
                if 2**level in config.attention_resolutions:
                    layers.append(self.attention(channels, config.num_heads))
                yield self._block(level, channels, *layers)

    def _block(self, level: int, channels: int, *layers: nn.Module) -> TimestepEmbedSequential:
        self.block_levels.append(level)
        self.block_channels.append(channels)
        return TimestepEmbedSequential(*layers)

    def gates(self, blocks: Iterable[int]) -> nn.ModuleList:
        """Spectral gates for the outputs of these input blocks; none where the config has none.

        A constructor calls this last, so that all other weights are initialised to the same values without gates. It
        also puts the channels of the weights innermost in memory, where convolutions are faster.
        """
        if self.config.dims == 2:
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        frequency = self.config.frequency
        if frequency is None:
            return nn.ModuleList()
        emb_channels, dims = self.options.emb_channels, self.config.dims
        return nn.ModuleList(FrequencyGate(self.block_channels[i], emb_channels, frequency, dims) for i in blocks)

    def freeze_all_but_gates(self) -> Self:
        """Switch off the gradients of everything but the spectral gates; returns the network itself."""
        self.requires_grad_(False)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name.startswith(GATES))
        return self

    def embed(self, timesteps: Tensor, y: Tensor | None = None) -> Tensor:
        """(N,) timesteps and, for a model with classes, (N,) labels -> (N or 1, emb_channels).

        One row suffices for one timestep that was expanded to N, as samplers give it.
        """
        if len(timesteps) and timesteps.stride(0) == 0:
            timesteps = timesteps[:1]
        if not self.remembers_embeddings or len(timesteps) != 1 or y is not None:
            emb = self._embed(timesteps)
            return emb if y is None else emb + self.label_emb(y)
        timestep = timesteps.item()
        emb = self._embeddings.get(timestep)
        if emb is None:
            if len(self._embeddings) >= MOST_EMBEDDINGS:
                self._embeddings.clear()
            emb = self._embeddings[timestep] = self._embed(timesteps)
        return emb

    def _embed(self, timesteps: Tensor) -> Tensor:
        first = self.time_embed[0]
        assert isinstance(first, nn.Linear)
        return self.time_embed(timestep_embedding(timesteps, self.config.model_channels).to(first.weight.dtype))

    @property
    def torso_dtype(self) -> torch.dtype:
        """The precision of the convolutions."""
        return next(self.input_blocks.parameters()).dtype

    @property
    def head_dtype(self) -> torch.dtype:
        """The precision of the output and of everything outside the torso."""
        return next(self.time_embed.parameters()).dtype

    def to_torso_dtype(self, dtype: torch.dtype) -> Self:
        """Convert the convolutions and attention of the torso to `dtype`; returns the network itself.

        Normalisation, embeddings and the head keep their precision, so the output is still float32.
        """
        for module in self.torso():
            module.to(dtype)
        return self

    def torso(self) -> Iterator[nn.Module]:
        """The layers that `to_torso_dtype` converts."""
        for name, module in self.named_modules():
            if name.startswith(("input_blocks", "middle_block", "output_blocks")) and isinstance(
                module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)
            ):
                yield module

    def check_image(self, x: Tensor) -> None:
        """Raise ConfigError unless x is (N, in_channels, ...) with sides that are multiples of the downsampling."""
        config = self.config
        if x.ndim != config.dims + 2 or x.shape[1] != config.in_channels:
            raise ConfigError(
                f"an input of shape {tuple(x.shape)}: (N, {config.in_channels}, ...) with {config.dims} "
                "spatial dimensions is needed"
            )
        factor = config.downsampling_factors[-1]
        size = x.shape[-min(config.dims, 2) :]
        if any(side % factor for side in size):
            raise ConfigError(
                f"an image of {'x'.join(map(str, size))}: every side must be a multiple of {factor}, "
                "by which this model downsamples"
            )
        lowest, channels = x[0, 0].numel() // factor ** len(size), int(config.channel_mult[-1] * config.model_channels)
        if lowest == 1 and channels == NUM_GROUPS:
            raise ConfigError(
                f"an image of {'x'.join(map(str, size))}: at least 2 pixels at the lowest resolution are needed, "
                f"1/{factor} of the image, where the model normalises each of its {NUM_GROUPS} channels alone"
            )
