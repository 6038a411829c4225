"""guided-diffusion's networks with their old names and constructors; `rediffuse.models` computes.

The weights have the old names and shapes; the blocks inside a network are those of `rediffuse.models`. Comments that
silence pyright are at parameters that keep their old names, for programs that pass them by keyword.
"""

from collections.abc import Iterable, Mapping, Sequence
from inspect import signature
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from rediffuse.models import attention, encoder, layers, superres, unet
from rediffuse.models.checkpoints import require_fit
from rediffuse.models.config import EncoderConfig, Pool, UNetConfig
from rediffuse.models.layers import BlockOptions, Downsample, TimestepBlock, Upsample
from rediffuse.models.trunk import Trunk

__all__ = [
    "AttentionBlock",
    "AttentionPool2d",
    "Downsample",
    "EncoderUNetModel",
    "QKVAttention",
    "QKVAttentionLegacy",
    "ResBlock",
    "SuperResModel",
    "TimestepBlock",
    "TimestepEmbedSequential",
    "UNetModel",
    "Upsample",
]

Config = TypeVar("Config", UNetConfig, EncoderConfig)


class _OldTrunk(Trunk):
    """Abstract: the attributes of a network that programs read, and the methods that change its precision."""

    image_size: int
    in_channels: int
    model_channels: int
    out_channels: int
    num_res_blocks: int
    attention_resolutions: tuple[int, ...]
    dropout: float
    channel_mult: tuple[float, ...]
    conv_resample: bool
    use_checkpoint: bool
    num_heads: int
    num_head_channels: int
    num_heads_upsample: int
    dtype: torch.dtype
    """The torso's precision after `convert_to_fp16` or `convert_to_fp32`; before that the one of `use_fp16`."""

    def _remember(self, use_fp16: bool, num_heads_upsample: int) -> None:
        """Set the attributes above from the config."""
        for name in _OldTrunk.__annotations__.keys() - {"num_heads_upsample", "dtype"}:
            setattr(self, name, getattr(self.config, name))
        self.num_heads_upsample = self.num_heads if num_heads_upsample == -1 else num_heads_upsample
        self.dtype = torch.float16 if use_fp16 else torch.float32

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As in torch, but weights that do not fit raise CheckpointError, which names their file in one line."""
        if strict:
            require_fit(self, state_dict, getattr(state_dict, "path", "the given weights"))
        return super().load_state_dict(state_dict, strict, assign)

    def convert_to_fp16(self) -> None:
        """Convert the torso to float16; normalisation, embeddings and the head stay in float32."""
        self.dtype = torch.float16
        self.to_torso_dtype(self.dtype)

    def convert_to_fp32(self) -> None:
        """Convert the torso back to float32."""
        self.dtype = torch.float32
        self.to_torso_dtype(self.dtype)


class UNetModel(_OldTrunk, unet.UNetModel):
    """The U-Net. Arguments are those of `UNetConfig`; attention resolutions that no feature map has are ignored."""

    def __init__(
        self,
        image_size: int,
        in_channels: int,
        model_channels: int,
        out_channels: int,
        num_res_blocks: int,
        attention_resolutions: Iterable[int],
        dropout: float = 0,
        channel_mult: Sequence[float] = (1, 2, 4, 8),
        conv_resample: bool = True,
        dims: int = 2,
        num_classes: int | None = None,
        use_checkpoint: bool = False,
        use_fp16: bool = False,
        num_heads: int = 1,
        num_head_channels: int = -1,
        num_heads_upsample: int = -1,
        use_scale_shift_norm: bool = False,
        resblock_updown: bool = False,
        use_new_attention_order: bool = False,
    ) -> None:
        """Raises ConfigError where the arguments do not fit together; `use_fp16` waits for `convert_to_fp16`."""
        config = _config(
            UNetConfig,
            image_size=image_size,
            in_channels=in_channels,
            model_channels=model_channels,
            out_channels=out_channels,
            num_res_blocks=num_res_blocks,
            attention_resolutions=attention_resolutions,
            dropout=dropout,
            channel_mult=channel_mult,
            conv_resample=conv_resample,
            dims=dims,
            num_classes=num_classes,
            use_checkpoint=use_checkpoint,
            num_heads=num_heads,
            num_head_channels=num_head_channels,
            num_heads_upsample=num_heads_upsample,
            use_scale_shift_norm=use_scale_shift_norm,
            resblock_updown=resblock_updown,
            use_new_attention_order=use_new_attention_order,
        )
        unet.UNetModel.__init__(self, config)
        self._remember(use_fp16, num_heads_upsample)
        self.num_classes = num_classes

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Tensor, timesteps: Tensor, y: Tensor | None = None
    ) -> Tensor:
        """x: (N, in_channels, ...), timesteps: (N,), y: (N,) labels -> (N, out_channels, ...)."""
        return super().forward(x, timesteps, y)


class SuperResModel(_OldTrunk, superres.SuperResModel):
    """The U-Net that enlarges an image. Arguments are those of `UNetModel`; `in_channels` is the image's."""

    def __init__(self, image_size: int, in_channels: int, *args: Any, **kwargs: Any) -> None:
        bound = signature(UNetModel).bind(image_size, in_channels, *args, **kwargs)
        bound.apply_defaults()
        arguments = bound.arguments
        use_fp16 = arguments.pop("use_fp16")
        superres.SuperResModel.__init__(self, _config(UNetConfig, **arguments))
        self._remember(use_fp16, arguments["num_heads_upsample"])
        self.in_channels = 2 * in_channels  # those of the first convolution
        self.num_classes: int | None = arguments["num_classes"]

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Tensor, timesteps: Tensor, low_res: Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        """As `UNetModel`, given low_res: (N, in_channels, h, w), enlarged to the size of x."""
        return super().forward(x, timesteps, low_res, **kwargs)


class EncoderUNetModel(_OldTrunk, encoder.EncoderUNetModel):
    """The encoder half with a pooled head. Arguments are those of `EncoderConfig`, attention as in `UNetModel`."""

    def __init__(
        self,
        image_size: int,
        in_channels: int,
        model_channels: int,
        out_channels: int,
        num_res_blocks: int,
        attention_resolutions: Iterable[int],
        dropout: float = 0,
        channel_mult: Sequence[float] = (1, 2, 4, 8),
        conv_resample: bool = True,
        dims: int = 2,
        use_checkpoint: bool = False,
        use_fp16: bool = False,
        num_heads: int = 1,
        num_head_channels: int = -1,
        num_heads_upsample: int = -1,
        use_scale_shift_norm: bool = False,
        resblock_updown: bool = False,
        use_new_attention_order: bool = False,
        pool: Pool = "adaptive",
    ) -> None:
        """Raises ConfigError where the arguments do not fit together; `use_fp16` waits for `convert_to_fp16`."""
        config = _config(
            EncoderConfig,
            image_size=image_size,
            in_channels=in_channels,
            model_channels=model_channels,
            out_channels=out_channels,
            num_res_blocks=num_res_blocks,
            attention_resolutions=attention_resolutions,
            dropout=dropout,
            channel_mult=channel_mult,
            conv_resample=conv_resample,
            dims=dims,
            use_checkpoint=use_checkpoint,
            num_heads=num_heads,
            num_head_channels=num_head_channels,
            use_scale_shift_norm=use_scale_shift_norm,
            resblock_updown=resblock_updown,
            use_new_attention_order=use_new_attention_order,
            pool=pool,
        )
        encoder.EncoderUNetModel.__init__(self, config)
        self._remember(use_fp16, num_heads_upsample)
        self.pool = pool

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """x: (N, in_channels, ...), timesteps: (N,) -> (N, out_channels)."""
        return super().forward(x, timesteps)


class TimestepEmbedSequential(  # pyright: ignore[reportIncompatibleVariableOverride]
    layers.TimestepEmbedSequential, TimestepBlock
):
    """Layers in sequence. Timestep blocks among them, which may be such sequences, also get the embedding."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().forward(x, emb)


class ResBlock(layers.ResBlock):
    """A residual block with a timestep embedding; with `up` or `down` it resamples."""

    def __init__(
        self,
        channels: int,
        emb_channels: int,
        dropout: float,
        out_channels: int | None = None,
        use_conv: bool = False,
        use_scale_shift_norm: bool = False,
        dims: int = 2,
        use_checkpoint: bool = False,
        up: bool = False,
        down: bool = False,
    ) -> None:
        options = BlockOptions(
            emb_channels=emb_channels,
            dropout=dropout,
            use_scale_shift_norm=use_scale_shift_norm,
            dims=dims,
            use_checkpoint=use_checkpoint,
        )
        resample = "up" if up else "down" if down else None
        super().__init__(channels, out_channels or channels, options, resample=resample, use_conv=use_conv)
        self.channels, self.out_channels = channels, out_channels or channels


class AttentionBlock(attention.AttentionBlock):
    """Self-attention of all positions; `num_head_channels`, unless -1, sets the number of heads."""

    def __init__(
        self,
        channels: int,
        num_heads: int = 1,
        num_head_channels: int = -1,
        use_checkpoint: bool = False,
        use_new_attention_order: bool = False,
    ) -> None:
        super().__init__(
            channels,
            attention.count_heads(channels, num_heads, num_head_channels),
            use_new_attention_order=use_new_attention_order,
            use_checkpoint=use_checkpoint,
        )
        self.channels = channels


class AttentionPool2d(attention.AttentionPool2d):
    """(N, embed_dim, spacial_dim, spacial_dim) -> (N, output_dim), by default embed_dim."""

    def __init__(
        self, spacial_dim: int, embed_dim: int, num_heads_channels: int, output_dim: int | None = None
    ) -> None:
        super().__init__(spacial_dim, embed_dim, num_heads_channels, output_dim or embed_dim)


class QKVAttentionLegacy(nn.Module):
    """Attention of (N, heads * 3 * C, L), ordered by head and then q, k, v, to (N, heads * C, L)."""

    def __init__(self, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads

    def forward(self, qkv: Tensor) -> Tensor:
        q, k, v = attention.split_heads_outermost(qkv.transpose(1, 2), self.n_heads)
        return attention.attend(q, k, v).transpose(1, 2)


class QKVAttention(nn.Module):
    """Attention of (N, 3 * heads * C, L), ordered by q, k, v and then head, to (N, heads * C, L)."""

    def __init__(self, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads

    def forward(self, qkv: Tensor) -> Tensor:
        q, k, v = attention.split_qkv_outermost(qkv.transpose(1, 2), self.n_heads)
        return attention.attend(q, k, v).transpose(1, 2)


def _config(
    kind: type[Config], *, attention_resolutions: Iterable[int], channel_mult: Sequence[float], **arguments: Any
) -> Config:
    """The config without the attention resolutions that no feature map has."""
    reached = {2**level for level in range(len(channel_mult))}
    return kind(
        attention_resolutions=tuple(factor for factor in attention_resolutions if factor in reached),
        channel_mult=tuple(channel_mult),
        **arguments,
    )
