"""Infer a network's configuration from the names and shapes of a checkpoint's tensors, as far as they determine it."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import Tensor

from rediffuse.errors import CheckpointError, ConfigError, shown
from rediffuse.models.config import EncoderConfig, FrequencyConfig, Kind, Pool, UNetConfig
from rediffuse.models.frequency import GATES

Shapes = Mapping[str, tuple[int, ...]]

_NEEDED = (
    "time_embed.0.weight",
    "input_blocks.0.0.weight",
    "middle_block.0.emb_layers.1.weight",
    "middle_block.0.out_layers.3.weight",
)
_HEADS = "num_heads or num_head_channels"
_FLAGS = {"process": "schedule", "use_new_attention_order": "attention_order"}
"""Flags of `rediffuse convert` whose names differ from the field that they set."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A network's configuration as far as it is known."""

    source: str
    kind: Kind
    fields: Mapping[str, Any]
    """The known fields of the configuration: inferred from the tensors, or given."""
    unknown: tuple[str, ...]
    """The fields that still have to be given. Dropout and checkpointing never are: outputs do not depend on them."""

    @property
    def missing_flags(self) -> str:
        """The flags of `rediffuse convert` that set the unknown fields."""
        names = (name.split(" or ") for name in self.unknown)
        return ", ".join(
            " or ".join(f"--{_FLAGS.get(part, part).replace('_', '-')}" for part in parts) for parts in names
        )

    def config(self) -> UNetConfig | EncoderConfig:
        """The configuration. Raises ConfigError that names the unknown fields, if there are any."""
        if self.unknown:
            raise ConfigError(
                f"{self.source}: the tensors do not determine {', '.join(self.unknown)}: give each of them to `load`, "
                f"or make a model folder: `rediffuse convert {self.source} FOLDER` with {self.missing_flags}"
            )
        return EncoderConfig(**self.fields) if self.kind == "encoder" else UNetConfig(**self.fields)


def infer(state: Mapping[str, Tensor], source: str, known: Mapping[str, Any] | None = None) -> Layout:
    """Infer a network's configuration from the names and shapes of its tensors.

    Args:
        state: a state_dict with guided-diffusion's names; its values are not used.
        source: where it comes from, for errors.
        known: fields that the tensors may not determine: image_size, num_heads or num_head_channels,
            use_new_attention_order; for tensors that fit several networks also `kind` and num_res_blocks; dropout,
            use_checkpoint and num_heads_upsample where they are not the defaults; and frequency, to add spectral gates
            to a network that has none.

    Raises:
        CheckpointError: the tensors are of another architecture, or contradict `known`.
        ConfigError: several networks have these tensors; names the field to give.
    """
    known = dict(known or {})
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    for name in _NEEDED:
        if len(shapes.get(name, ())) < 2:
            raise CheckpointError(f"{source}: not a U-Net or its encoder: there is no weight {name}")
    for name, shape in shapes.items():
        if not shape or 0 in shape:
            raise CheckpointError(f"{source}: not a U-Net or its encoder: {shown(name)} has the shape {shape}")
    kind = _kind(shapes, source, known.pop("kind", None))
    fields = (
        _head(shapes, source, kind) | _trunk(shapes, source, known.get("num_res_blocks")) | infer_gates(shapes, source)
    )
    if fields.get("pool") == "attention":
        # One position per pixel of the last feature map, and one for the mean (CLIP, arXiv:2103.00020).
        side = math.isqrt(shapes["out.2.positional_embedding"][1] - 1)
        fields["image_size"] = side * 2 ** (len(fields["channel_mult"]) - 1)
    for name, value in known.items():
        if name in fields and fields[name] != value:
            raise CheckpointError(f"{source}: {name}={value!r} was given, but the tensors fit {fields[name]!r}")
    fields |= known
    unknown = [name for name in ("image_size", "use_new_attention_order") if name not in fields]
    if not {"num_heads", "num_head_channels"} & fields.keys():
        unknown.append(_HEADS)
    return Layout(source=source, kind=kind, fields=fields, unknown=tuple(unknown))


def _kind(shapes: Shapes, source: str, given: Kind | None) -> Kind:
    if given is not None and given not in get_args(Kind):
        raise ConfigError(f"kind={given!r}: {', '.join(get_args(Kind))} are allowed")
    if not any(name.startswith("output_blocks.") for name in shapes):
        if given not in (None, "encoder"):
            raise CheckpointError(f"{source}: kind={given!r} was given, but the tensors fit 'encoder'")
        return "encoder"
    if given == "encoder":
        raise CheckpointError(f"{source}: kind='encoder' was given, but the tensors are those of a complete U-Net")
    if given is not None:
        return given
    stem, out = shapes["input_blocks.0.0.weight"][1], _rows(shapes, source, "out.2.weight")
    if out == 2 * stem or (out == stem and stem % 2):
        return "unet"
    if stem == 2 * out:
        return "superres"
    raise ConfigError(
        f"{source}: {stem} input and {out} output channels fit two networks: give kind, 'unet' or 'superres' "
        "(`rediffuse convert --kind`)"
    )


def _head(shapes: Shapes, source: str, kind: Kind) -> dict[str, Any]:
    """The fields of the first and last layers: channels, classes, pool."""
    stem = shapes["input_blocks.0.0.weight"]
    if kind == "encoder":
        pool, last = _pool(shapes, source)
        return {"in_channels": stem[1], "out_channels": shapes[last][0], "pool": pool}
    if kind == "superres" and stem[1] % 2:
        raise CheckpointError(f"{source}: super-resolution takes two images, but the stem has {stem[1]} channels")
    return {
        "in_channels": stem[1] // 2 if kind == "superres" else stem[1],
        "out_channels": _rows(shapes, source, "out.2.weight"),
        "num_classes": shapes["label_emb.weight"][0] if "label_emb.weight" in shapes else None,
    }


def _rows(shapes: Shapes, source: str, name: str) -> int:
    if not shapes.get(name):
        raise CheckpointError(f"{source}: not a U-Net: there is no weight {name}")
    return shapes[name][0]


def _pool(shapes: Shapes, source: str) -> tuple[Pool, str]:
    """The pool, and the name of the tensor with one row per class."""
    if "out.2.c_proj.weight" in shapes and len(shapes.get("out.2.positional_embedding", ())) == 2:
        return "attention", "out.2.c_proj.weight"
    if "out.2.weight" in shapes:
        return "spatial", "out.2.weight"
    if "out.3.weight" in shapes:
        return ("spatial_v2" if "out.1.weight" in shapes else "adaptive"), "out.3.weight"
    raise CheckpointError(f"{source}: not an encoder: its tensors out.* belong to none of the four pools")


@dataclass(frozen=True, kw_only=True)
class _Block:
    """What the tensors of an input block determine."""

    channels: int
    has_attention: bool = False
    down: Literal["pool", "convolution", "maybe", "no"] = "no"
    """`maybe`: a residual block whose tensors do not determine whether it downsamples."""


def _trunk(shapes: Shapes, source: str, num_res_blocks: int | None) -> dict[str, Any]:
    """The fields that the input blocks determine."""
    blocks = _input_blocks(shapes)
    num_res_blocks = _num_res_blocks(shapes, blocks, source, num_res_blocks)
    levels = _levels(blocks, num_res_blocks)
    model_channels = shapes["time_embed.0.weight"][1]
    kinds = {block.down for block in blocks}
    return {
        "dims": len(shapes["input_blocks.0.0.weight"]) - 2,
        "model_channels": model_channels,
        "num_res_blocks": num_res_blocks,
        "channel_mult": tuple(_multiplier(level[0].channels, model_channels) for level in levels),
        "attention_resolutions": tuple(2**i for i, level in enumerate(levels) if level[0].has_attention),
        "conv_resample": "pool" not in kinds,
        "resblock_updown": len(levels) > 1 and not kinds & {"pool", "convolution"},
        # Scale and shift per channel, where the embedding is otherwise only added (arXiv:2105.05233, section 3.1).
        "use_scale_shift_norm": shapes["middle_block.0.emb_layers.1.weight"][0]
        == 2 * shapes["middle_block.0.out_layers.3.weight"][0],
    }


def infer_gates(shapes: Shapes, source: str) -> dict[str, Any]:
    """The field `frequency`, from the tensors of spectral gates; an empty dictionary where there are none.

    Tensors without gates do not set the field to None, because a network may be given new gates.

    Raises:
        CheckpointError: tensors have the names of gates, but not their shapes.
    """
    if not any(name.startswith(GATES) for name in shapes):
        return {}
    offset, embed = shapes.get(f"{GATES}0.offset", ()), shapes.get(f"{GATES}0.embed.weight", ())
    if len(offset) != 2 or len(embed) != 2:
        raise CheckpointError(f"{source}: its tensors {GATES}* do not have the shapes of spectral gates")
    return {"frequency": FrequencyConfig(num_groups=offset[0], num_bands=offset[1], hidden=embed[0])}


def _input_blocks(shapes: Shapes) -> list[_Block]:
    """All input blocks in order. Average pooling has no tensors, so a missing number is a pooling block."""
    numbers = {int(match[1]) for match in map(re.compile(r"input_blocks\.(\d{1,6})\.").match, shapes) if match}
    last = min(max(numbers), 2 * len(numbers))  # a larger number leaves a gap, with which no levels are formed
    blocks = [_Block(channels=shapes["input_blocks.0.0.weight"][0])]
    for i in range(1, last + 1):
        convolution = shapes.get(f"input_blocks.{i}.0.out_layers.3.weight")
        if convolution is None:
            down = "convolution" if f"input_blocks.{i}.0.op.weight" in shapes else "pool"
            blocks.append(_Block(channels=blocks[-1].channels, down=down))
            continue
        has_attention = f"input_blocks.{i}.1.qkv.weight" in shapes
        is_widened = f"input_blocks.{i}.0.skip_connection.weight" in shapes
        down = "no" if has_attention or is_widened else "maybe"
        blocks.append(_Block(channels=convolution[0], has_attention=has_attention, down=down))
    return blocks


def _num_res_blocks(shapes: Shapes, blocks: list[_Block], source: str, given: int | None) -> int:
    """Residual blocks per level: the number with which the blocks form levels as in an ADM network."""
    possible = [number for number in range(1, len(blocks)) if _forms_levels(shapes, blocks, number)]
    if not possible:
        raise CheckpointError(f"{source}: not a U-Net or its encoder: its blocks do not form levels")
    if given is not None and given not in possible:
        allowed = " or ".join(map(str, possible))
        raise CheckpointError(f"{source}: num_res_blocks={given} was given, but the tensors fit {allowed}")
    if given is None and len(possible) > 1:
        numbers = ", ".join(map(str, possible))
        raise ConfigError(
            f"{source}: the tensors fit num_res_blocks of {numbers}: give it (`rediffuse convert --num-res-blocks`)"
        )
    return possible[0] if given is None else given


def _forms_levels(shapes: Shapes, blocks: list[_Block], num_res_blocks: int) -> bool:
    """Whether every (num_res_blocks + 1)-th block downsamples, and the blocks between are alike."""
    if len(blocks) % (num_res_blocks + 1):
        return False
    downs = set(range(num_res_blocks + 1, len(blocks), num_res_blocks + 1))
    plain = {i for i, block in enumerate(blocks) if block.down in ("pool", "convolution")}
    if plain and plain != downs:
        return False
    if (
        not plain
        and "output_blocks.0.0.in_layers.2.weight" in shapes
        and _residual_ups(shapes) != {i - 1 for i in downs}
    ):
        return False
    return all(blocks[i].down != "no" for i in downs) and all(
        len({(block.channels, block.has_attention) for block in level}) == 1
        for level in _levels(blocks, num_res_blocks)
    )


def _levels(blocks: list[_Block], num_res_blocks: int) -> list[list[_Block]]:
    return [blocks[first : first + num_res_blocks] for first in range(1, len(blocks), num_res_blocks + 1)]


def _residual_ups(shapes: Shapes) -> set[int]:
    """Numbers of the output blocks that end in an upsampling residual block, which follows another residual block."""
    matches = map(re.compile(r"output_blocks\.(\d+)\.[12]\.in_layers\.2\.weight").match, shapes)
    return {int(match[1]) for match in matches if match}


def _multiplier(channels: int, model_channels: int) -> float:
    """The multiplier for which `int(multiplier * model_channels)` is `channels`."""
    if channels % model_channels == 0:
        return channels // model_channels
    multiplier = channels / model_channels
    exact = int(multiplier * model_channels) == channels
    return multiplier if exact else math.nextafter(multiplier, math.inf)
