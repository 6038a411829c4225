"""Write rediffuse's own U-Nets as pipelines of diffusers, where its `UNet2DModel` can express them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from rediffuse.diffusion.config import ProcessConfig
from rediffuse.errors import ConfigError
from rediffuse.files import atomic_folder
from rediffuse.models.attention import count_heads
from rediffuse.models.config import UNetConfig
from rediffuse.zoo.folder import Found
from rediffuse.zoo.pipelines.scheduler import library

_PREDICTIONS = {"eps": "epsilon", "x_0": "sample", "v": "v_prediction"}

_OUTER = (
    ("time_embed.0", "time_embedding.linear_1"),
    ("time_embed.2", "time_embedding.linear_2"),
    ("label_emb", "class_embedding"),
    ("input_blocks.0.0", "conv_in"),
    ("middle_block.0", "mid_block.resnets.0"),
    ("middle_block.1", "mid_block.attentions.0"),
    ("middle_block.2", "mid_block.resnets.1"),
    ("out.0", "conv_norm_out"),
    ("out.2", "conv_out"),
)
_PARTS = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
    "norm": "group_norm",
    "proj_out": "to_out.0",
    "op": "conv",
}
"""The parts of residual blocks, attention and resampling, here and in diffusers."""


def write_pipeline(folder: Path, found: Found) -> None:
    """Write a `DDPMPipeline` of a U-Net, with equal outputs.

    Args:
        folder: a folder of `save_pretrained`, replaced as a whole.
        found: the model.

    Raises:
        ConfigError: the network or its process cannot be expressed; names the fields.
        StorageError: the folder cannot be written.
    """
    config, process = found.layout.config(), found.process
    if found.layout.kind != "unet" or not isinstance(config, UNetConfig) or process is None:
        raise ConfigError(f"{found.layout.source}: a {found.layout.kind} has no form in diffusers; a unet has")
    reasons = [*_reasons(config), *_process_reasons(process)]
    if reasons:
        raise ConfigError(f"{found.layout.source}: diffusers cannot express {', '.join(reasons)}")
    diffusers = library("diffusers")
    unet = diffusers.UNet2DModel(**_unet_fields(config))
    state = dict(_renamed(found.state, config))
    unet.load_state_dict(state, assign=True)
    scheduler = diffusers.DDPMScheduler(**_scheduler_fields(process))
    with atomic_folder(folder) as partial:
        diffusers.DDPMPipeline(unet=unet, scheduler=scheduler).save_pretrained(partial)


def _reasons(config: UNetConfig) -> Iterator[str]:
    """The fields of a network that `UNet2DModel` cannot express."""
    if config.dims != 2:
        yield f"dims={config.dims}"
    if config.channel_mult[0] != 1:
        yield f"channel_mult={config.channel_mult} (1 at full resolution is needed)"
    if config.frequency is not None:
        yield "spectral gates"
    if not config.conv_resample and not config.resblock_updown:
        yield "conv_resample=False"
    if config.num_heads_upsample not in (-1, config.num_heads):
        yield f"num_heads_upsample={config.num_heads_upsample}"
    if len({_head_channels(config, width) for width in _attention_widths(config)}) > 1 and config.num_heads != 1:
        yield f"num_heads={config.num_heads} (one number of channels per head is needed)"


def _process_reasons(process: ProcessConfig) -> Iterator[str]:
    """The fields of a process that `DDPMScheduler` cannot express."""
    if process.prediction not in _PREDICTIONS:
        yield f"prediction={process.prediction}"
    if process.rescale_timesteps and process.num_timesteps != 1000:
        yield "rescale_timesteps"


def _levels(config: UNetConfig) -> list[tuple[int, bool]]:
    """The channels at every resolution, and whether there is attention."""
    widths = [int(factor * config.model_channels) for factor in config.channel_mult]
    return [(width, 2**level in config.attention_resolutions) for level, width in enumerate(widths)]


def _attention_widths(config: UNetConfig) -> list[int]:
    levels = _levels(config)
    return [*(width for width, attends in levels if attends), levels[-1][0]]  # the middle block has attention too


def _head_channels(config: UNetConfig, width: int) -> int:
    return width // count_heads(width, config.num_heads, config.num_head_channels)


def _unet_fields(config: UNetConfig) -> dict[str, Any]:
    levels = _levels(config)
    plain = "Resnet{}sampleBlock2D" if config.resblock_updown else "{}Block2D"
    kinds = ["Attn{}Block2D" if attends else plain for _, attends in levels]
    resampling = "resnet" if config.resblock_updown else "conv"
    one_head = config.num_head_channels == -1 and config.num_heads == 1
    return {
        "sample_size": config.image_size,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "layers_per_block": config.num_res_blocks,
        "block_out_channels": tuple(width for width, _ in levels),
        "down_block_types": tuple(kind.format("Down") for kind in kinds),
        "up_block_types": tuple(kind.format("Up") for kind in reversed(kinds)),
        "downsample_type": resampling,
        "upsample_type": resampling,
        "attention_head_dim": None if one_head else _head_channels(config, levels[-1][0]),
        "attn_norm_num_groups": 32,
        "resnet_time_scale_shift": "scale_shift" if config.use_scale_shift_norm else "default",
        "dropout": config.dropout,
        "freq_shift": 0,
        "flip_sin_to_cos": True,
        "num_class_embeds": config.num_classes,
    }


def _scheduler_fields(process: ProcessConfig) -> dict[str, Any]:
    scale = 1000 / process.num_timesteps
    return {
        "num_train_timesteps": process.num_timesteps,
        "beta_schedule": "linear" if process.schedule == "linear" else "squaredcos_cap_v2",
        "beta_start": scale * 1e-4,
        "beta_end": scale * 2e-2,
        "prediction_type": _PREDICTIONS[process.prediction],
        "variance_type": process.variance,
    }


def _renamed(state: Mapping[str, Tensor], config: UNetConfig) -> Iterator[tuple[str, Tensor]]:
    """The tensors under the names of `UNet2DModel`, in which q, k and v are separate."""
    for ours, theirs in _modules(config):
        for name in (name for name in state if name.startswith(f"{ours}.")):
            part, _, kind = name.removeprefix(f"{ours}.").rpartition(".")
            if part == "qkv":
                named = zip("qkv", _split(state[name], config), strict=True)
                yield from ((f"{theirs}.to_{letter}.{kind}", tensor) for letter, tensor in named)
            else:
                tensor = state[name].squeeze(2) if part == "proj_out" and kind == "weight" else state[name]
                yield ".".join(filter(None, (theirs, _PARTS.get(part, part), kind))), tensor


def _modules(config: UNetConfig) -> Iterator[tuple[str, str]]:
    """The names of the same module in guided-diffusion and in diffusers."""
    yield from _OUTER
    count, levels = config.num_res_blocks, _levels(config)
    index = 1
    for level in range(len(levels)):
        if level:
            yield f"input_blocks.{index}.0", f"down_blocks.{level - 1}.downsamplers.0"
            index += 1
        for block in range(count):
            yield f"input_blocks.{index}.0", f"down_blocks.{level}.resnets.{block}"
            yield f"input_blocks.{index}.1", f"down_blocks.{level}.attentions.{block}"
            index += 1
    index = 0
    for place, (level, (_, attends)) in enumerate(reversed(list(enumerate(levels)))):
        for block in range(count + 1):
            yield f"output_blocks.{index}.0", f"up_blocks.{place}.resnets.{block}"
            if attends:
                yield f"output_blocks.{index}.1", f"up_blocks.{place}.attentions.{block}"
            if level and block == count:
                yield f"output_blocks.{index}.{1 + attends}", f"up_blocks.{place}.upsamplers.0"
            index += 1


def _split(qkv: Tensor, config: UNetConfig) -> list[Tensor]:
    """The rows of q, k and v, heads outermost: (3C, C, 1) to (C, C) each, or (3C,) to (C,)."""
    heads = count_heads(len(qkv) // 3, config.num_heads, config.num_head_channels)
    rows = qkv.flatten(1) if qkv.ndim > 1 else qkv
    if config.use_new_attention_order:
        return list(rows.chunk(3))
    return [part.flatten(0, 1) for part in rows.unflatten(0, (heads, 3, -1)).unbind(1)]
