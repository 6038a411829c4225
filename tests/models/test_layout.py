"""Configurations inferred from tensors: of the published checkpoints, the golden networks, and many small networks."""

import gzip
import json
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from golden_values import FOLDER, load
from rediffuse.errors import CheckpointError, ConfigError
from rediffuse.models.config import EncoderConfig, FrequencyConfig, Kind, UNetConfig
from rediffuse.models.encoder import EncoderUNetModel
from rediffuse.models.layout import infer
from rediffuse.models.superres import SuperResModel
from rediffuse.models.unet import UNetModel
from rediffuse.zoo.published import PUBLISHED

LAYOUTS = json.loads(gzip.decompress((FOLDER / "published_checkpoints.json.gz").read_bytes()))
NOT_IN_THE_TENSORS = {
    "image_size",
    "dropout",
    "num_heads",
    "num_head_channels",
    "num_heads_upsample",
    "use_new_attention_order",
    "use_checkpoint",
    "frequency",  # where there are no gates
}
POOLS = ("adaptive", "attention", "spatial", "spatial_v2")
GOLDEN = [f"unet_{form}" for form in ("default", "adm", "ddpm", "avgpool", "1d", "3d")]
GOLDEN += ["superres", *(f"encoder_{pool}" for pool in POOLS)]


def tensors(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def state_of(kind: Kind, config: Any) -> dict[str, Tensor]:
    with torch.device("meta"):
        return {"unet": UNetModel, "superres": SuperResModel, "encoder": EncoderUNetModel}[kind](config).state_dict()


@pytest.mark.parametrize("file", LAYOUTS)
def test_published_networks_have_the_published_names_shapes_and_parameters(file: str) -> None:
    model = PUBLISHED[file.removesuffix(".pt")]
    state = state_of(model.kind, model.network)
    assert {name: list(tensor.shape) for name, tensor in state.items()} == LAYOUTS[file]["state_dict"]
    assert sum(tensor.numel() for tensor in state.values()) == LAYOUTS[file]["parameters"]


@pytest.mark.parametrize("file", LAYOUTS)
def test_a_published_layout_lacks_nothing_but_gates_of_a_network_that_has_them(file: str) -> None:
    model = PUBLISHED[file.removesuffix(".pt")]
    state, given = (
        state_of(model.kind, replace(model.network, frequency=FrequencyConfig())),
        LAYOUTS[file]["state_dict"],
    )
    assert {name for name in state if name not in given} == {n for n in state if n.startswith("frequency.")} != set()
    assert {name: list(state[name].shape) for name in given} == given


@pytest.mark.parametrize("file", LAYOUTS)
def test_published_tensors_tell_all_but_what_tensors_cannot_tell(file: str) -> None:
    model = PUBLISHED[file.removesuffix(".pt")]
    state = tensors(LAYOUTS[file]["state_dict"])
    # Channels in and out of an upsampler with a learned variance are also those of a U-Net on six channels.
    layout = infer(state, file, {"kind": "superres"} if model.kind == "superres" else None)
    config = asdict(model.network)
    told = config.keys() - NOT_IN_THE_TENSORS | ({"image_size"} if model.kind == "encoder" else set())
    assert layout.kind == model.kind
    assert layout.fields == {name: config[name] for name in told}
    unknown = {"image_size", "use_new_attention_order", "num_heads or num_head_channels"}
    assert set(layout.unknown) == unknown - told


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_networks_are_recognised(name: str) -> None:
    meta, _ = load(name)
    kind: Kind = {"UNetModel": "unet", "SuperResModel": "superres", "EncoderUNetModel": "encoder"}[meta["kind"]]
    kwargs = {key: tuple(value) if isinstance(value, list) else value for key, value in meta["kwargs"].items()}
    config = EncoderConfig(**kwargs) if kind == "encoder" else UNetConfig(**kwargs)
    known: dict[str, Any] = {name: getattr(config, name) for name in NOT_IN_THE_TENSORS if hasattr(config, name)}
    known |= {"kind": kind, "num_res_blocks": config.num_res_blocks}
    assert infer(tensors(meta["state_dict"]), name, known).config() == config


@st.composite
def networks(draw: st.DrawFn) -> tuple[Kind, UNetConfig | EncoderConfig]:
    kind: Kind = draw(st.sampled_from(["unet", "superres", "encoder"]))
    mult = draw(st.lists(st.sampled_from([0.5, 1, 1.5, 2, 3]), min_size=1, max_size=3))
    shared: dict[str, Any] = {
        "image_size": 16,
        "model_channels": 64,
        "in_channels": draw(st.sampled_from([1, 3])),
        "num_res_blocks": draw(st.integers(1, 3)),
        "channel_mult": tuple(mult),
        "attention_resolutions": tuple(f for f in (1, 2, 4)[: len(mult)] if draw(st.booleans())),
        "dims": draw(st.sampled_from([1, 2])),
        "num_head_channels": 32,
        "use_scale_shift_norm": draw(st.booleans()),
        "use_new_attention_order": draw(st.booleans()),
    }
    if len(mult) > 1:
        way = draw(st.sampled_from(["pool", "convolution", "residual"]))
        shared |= {"conv_resample": way != "pool", "resblock_updown": way == "residual"}
    if kind == "encoder":
        pool = draw(st.sampled_from(["adaptive", "spatial", "spatial_v2"]))
        return kind, EncoderConfig(out_channels=7, pool=pool, **shared)
    learned, num_classes = draw(st.booleans()), draw(st.sampled_from([None, 5]))
    return kind, UNetConfig(out_channels=shared["in_channels"] * (1 + learned), num_classes=num_classes, **shared)


@settings(max_examples=25, deadline=None)
@given(networks())
def test_any_network_is_inferred_from_what_it_is_made_of(network: tuple[Kind, UNetConfig | EncoderConfig]) -> None:
    kind, config = network
    known: dict[str, Any] = {"image_size": 16, "num_head_channels": 32}
    known |= {"use_new_attention_order": config.use_new_attention_order}
    known |= {"kind": kind, "num_res_blocks": config.num_res_blocks}
    assert infer(state_of(kind, config), "test", known).config() == config


SMALL = UNetConfig(image_size=16, model_channels=32, channel_mult=(1, 2), num_res_blocks=1, num_heads=2)
KNOWN = {"image_size": 16, "num_heads": 2, "use_new_attention_order": False}


def test_all_that_is_unknown_is_listed_at_once() -> None:
    layout = infer(state_of("unet", SMALL), "a.pt")
    with pytest.raises(
        ConfigError, match=r"a\.pt: .* image_size, use_new_attention_order, num_heads or num_head_channels: give each"
    ):
        layout.config()


def test_a_given_value_that_the_tensors_contradict_is_refused() -> None:
    with pytest.raises(CheckpointError, match="model_channels=64 was given, but the tensors fit 32"):
        infer(state_of("unet", SMALL), "a.pt", {"model_channels": 64})
    with pytest.raises(CheckpointError, match="num_res_blocks=2 was given, but the tensors fit 1"):
        infer(state_of("unet", SMALL), "a.pt", {"num_res_blocks": 2})


def test_channels_that_fit_two_networks_are_not_guessed() -> None:
    upsampler = state_of("superres", replace(SMALL, out_channels=6))
    with pytest.raises(ConfigError, match="6 input and 6 output channels fit two networks: give kind"):
        infer(upsampler, "up.pt")
    assert infer(upsampler, "up.pt", {"kind": "superres"} | KNOWN).config() == replace(SMALL, out_channels=6)


def test_residual_blocks_that_may_downsample_or_not_are_not_guessed() -> None:
    config = EncoderConfig(
        image_size=16, model_channels=32, channel_mult=(1, 1), num_res_blocks=2, resblock_updown=True
    )
    with pytest.raises(ConfigError, match="fit num_res_blocks of 1, 2, 5: give it"):
        infer(state_of("encoder", config), "c.pt")
    assert infer(state_of("encoder", config), "c.pt", {"num_res_blocks": 2}).fields["channel_mult"] == (1, 1)


@pytest.mark.parametrize("kind", ["encoder", "u-net"])
def test_a_kind_that_the_tensors_are_not_is_refused(kind: str) -> None:
    with pytest.raises((CheckpointError, ConfigError), match=f"kind='{kind}'"):
        infer(state_of("unet", SMALL), "a.pt", {"kind": kind})


def test_tensors_of_another_architecture_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"r\.pt: not a U-Net or its encoder: there is no weight time_embed"):
        infer({"conv1.weight": torch.zeros(64, 3, 7, 7)}, "r.pt")


def test_blocks_in_no_order_are_refused() -> None:
    state = state_of("unet", replace(SMALL, channel_mult=(1, 2, 4)))
    broken = {name: tensor for name, tensor in state.items() if not name.startswith("input_blocks.5.")}
    with pytest.raises(CheckpointError, match="do not form levels"):
        infer(broken, "a.pt")
