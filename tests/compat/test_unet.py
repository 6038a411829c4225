"""The networks and blocks with their old constructors, as far as golden values do not cover them."""

import pytest
import torch
from torch import Tensor, nn

from golden_values import fill, rnd
from rediffuse.compat.guided_diffusion import unet
from rediffuse.errors import ConfigError

T = torch.tensor([3.0, 700.5])


def _small(kind: str, **arguments: object) -> nn.Module:
    common = {"image_size": 8, "in_channels": 3, "model_channels": 32, "num_res_blocks": 1, "channel_mult": (1, 2)}
    return getattr(unet, kind)(**common, **{"attention_resolutions": (2,), "out_channels": 3, **arguments})


def _state(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def test_positional_arguments_mean_what_they_did() -> None:
    network = unet.UNetModel(
        8, 3, 32, 6, 1, [2], 0.1, (1, 2), False, 2, 5, True, False, 4, -1, 2, True, True, True
    )  # fmt: skip
    named = unet.UNetModel(
        image_size=8,
        in_channels=3,
        model_channels=32,
        out_channels=6,
        num_res_blocks=1,
        attention_resolutions=[2],
        dropout=0.1,
        channel_mult=(1, 2),
        conv_resample=False,
        dims=2,
        num_classes=5,
        use_checkpoint=True,
        use_fp16=False,
        num_heads=4,
        num_head_channels=-1,
        num_heads_upsample=2,
        use_scale_shift_norm=True,
        resblock_updown=True,
        use_new_attention_order=True,
    )
    assert network.config == named.config
    encoder = unet.EncoderUNetModel(
        8, 3, 32, 6, 1, [2], 0, (1, 2), True, 2, True, False, 4, 16, -1, True, True, True, "spatial"
    )
    assert (encoder.config.pool, encoder.config.num_head_channels, encoder.config.use_checkpoint) == (
        "spatial",
        16,
        True,
    )
    upsampler = unet.SuperResModel(8, 3, 32, 6, 1, [2], 0, (1, 2), num_classes=5)
    assert (upsampler.config.in_channels, upsampler.config.num_classes) == (3, 5)


def test_programs_read_the_old_attributes() -> None:
    network = _small("UNetModel", num_classes=7, num_heads=2, attention_resolutions={1, 2})
    expected = {
        "image_size": 8,
        "in_channels": 3,
        "model_channels": 32,
        "out_channels": 3,
        "num_res_blocks": 1,
        "attention_resolutions": (1, 2),
        "dropout": 0,
        "channel_mult": (1, 2),
        "conv_resample": True,
        "num_classes": 7,
        "use_checkpoint": False,
        "dtype": torch.float32,
        "num_heads": 2,
        "num_head_channels": -1,
        "num_heads_upsample": 2,
    }
    assert {name: getattr(network, name) for name in expected} == expected
    assert _small("SuperResModel").in_channels == 6
    assert _small("EncoderUNetModel", pool="spatial").pool == "spatial"


@pytest.mark.parametrize("kind", ["UNetModel", "EncoderUNetModel", "SuperResModel"])
def test_attention_resolutions_that_are_never_reached_are_passed_over(kind: str) -> None:
    assert _state(_small(kind, attention_resolutions=[2, 4, 32])) == _state(_small(kind))


def test_a_call_may_name_its_arguments() -> None:
    x, network = rnd("x", 2, 3, 8, 8), fill(_small("UNetModel", num_classes=4))
    y = torch.tensor([0, 3])
    assert torch.equal(network(x=x, timesteps=T, y=y), network(x, T, y))


def test_labels_are_needed_exactly_where_there_are_classes() -> None:
    x = rnd("x", 2, 3, 8, 8)
    with pytest.raises(ConfigError, match="labels"):
        _small("UNetModel", num_classes=4)(x, T)
    with pytest.raises(ConfigError, match="labels"):
        _small("UNetModel")(x, T, torch.tensor([0, 1]))


def test_super_resolution_is_conditioned_on_the_enlarged_image() -> None:
    network = fill(_small("SuperResModel", num_classes=4))
    x, low_res, y = rnd("x", 2, 3, 8, 8), rnd("low", 2, 3, 4, 4), torch.tensor([0, 3])
    enlarged = nn.functional.interpolate(low_res, (8, 8), mode="bilinear")
    torch.testing.assert_close(network(x, T, low_res=low_res, y=y), network(x, T, enlarged, y=y))


@pytest.mark.parametrize("kind", ["UNetModel", "EncoderUNetModel"])
def test_half_precision_is_the_torsos_alone(kind: str) -> None:
    network, x = fill(_small(kind)), rnd("x", 2, 3, 8, 8)
    full = network(x, T)
    network.convert_to_fp16()
    assert network.dtype == network.get_parameter("input_blocks.0.0.weight").dtype == torch.float16
    assert network.get_parameter("input_blocks.1.0.in_layers.0.weight").dtype == torch.float32
    half = network(x, T)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, rtol=0.02, atol=0.02)
    network.convert_to_fp32()
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32} == {network.dtype}


def test_fp16_is_asked_for_before_it_is_converted_to() -> None:
    assert _small("UNetModel", use_fp16=True).dtype == torch.float16


def test_checkpointing_changes_no_gradient() -> None:
    x, gradients = rnd("x", 2, 3, 8, 8), []
    for use_checkpoint in (False, True):
        network = fill(_small("UNetModel", use_checkpoint=use_checkpoint))
        network(x, T).square().sum().backward()
        gradients.append(network.get_parameter("input_blocks.0.0.weight").grad)
    torch.testing.assert_close(*gradients)


# --- blocks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [
        ((), (2, 32, 4, 4)),
        ((64,), (2, 64, 4, 4)),
        ((64, True, True), (2, 64, 4, 4)),
        ((None, False, False, 2, True, True), (2, 32, 8, 8)),
        ((None, False, False, 2, False, False, True), (2, 32, 2, 2)),
    ],
)
def test_residual_block(arguments: tuple[object, ...], shape: tuple[int, ...]) -> None:
    block = unet.ResBlock(32, 16, 0.0, *arguments)
    assert block(rnd("x", 2, 32, 4, 4), rnd("emb", 2, 16)).shape == shape
    assert isinstance(block, unet.TimestepBlock)
    assert (block.channels, block.out_channels) == (32, shape[1])


def test_a_residual_block_starts_as_the_identity() -> None:
    x = rnd("x", 2, 32, 4, 4)
    assert torch.equal(unet.ResBlock(32, 16, 0.0)(x, rnd("emb", 2, 16)), x)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("use_conv", [False, True])
def test_resampling_leaves_the_depth_of_a_volume_alone(dims: int, use_conv: bool) -> None:
    x = rnd("x", 1, 2, *(4,) * dims)
    up = unet.Upsample(2, use_conv, dims)(x)
    down = unet.Downsample(2, use_conv, dims)(x)
    assert up.shape[2:] == ((4, 8, 8) if dims == 3 else (8,) * dims)
    assert down.shape[2:] == ((4, 2, 2) if dims == 3 else (2,) * dims)
    assert unet.Upsample(2, True, 2, out_channels=5)(rnd("x", 1, 2, 4, 4)).shape == (1, 5, 8, 8)


@pytest.mark.parametrize(("kind", "by_head"), [(unet.QKVAttentionLegacy, True), (unet.QKVAttention, False)])
def test_attention_over_both_orders_of_channels(kind: type[nn.Module], by_head: bool) -> None:
    q, k, v = (rnd(name, 2, 3, 4, 5) for name in "qkv")  # (N, heads, C, L)
    weight = torch.softmax(torch.einsum("nhct,nhcs->nhts", q, k) / 2, -1)
    expected = torch.einsum("nhts,nhcs->nhct", weight, v).reshape(2, 12, 5)
    qkv = torch.stack([q, k, v], dim=2 if by_head else 1).reshape(2, 36, 5)
    torch.testing.assert_close(kind(3)(qkv), expected)


@pytest.mark.parametrize("new_order", [False, True])
def test_attention_block_is_built_from_the_old_parts(new_order: bool) -> None:
    block = fill(unet.AttentionBlock(32, num_head_channels=8, use_new_attention_order=new_order))
    assert block.num_heads == 4
    x = rnd("x", 2, 32, 3, 3)
    attention = (unet.QKVAttention if new_order else unet.QKVAttentionLegacy)(4)
    weight, bias = block.get_parameter("qkv.weight"), block.get_parameter("qkv.bias")
    qkv = nn.functional.conv1d(block.norm(x).flatten(2), weight, bias)
    out = nn.functional.conv1d(
        attention(qkv), block.get_parameter("proj_out.weight"), block.get_parameter("proj_out.bias")
    )
    torch.testing.assert_close(block(x), x + out.reshape(x.shape))


def test_attention_pool_keeps_the_width_unless_told() -> None:
    x = rnd("x", 2, 32, 4, 4)
    assert unet.AttentionPool2d(4, 32, 8)(x).shape == (2, 32)
    assert unet.AttentionPool2d(4, 32, 8, 5)(x).shape == (2, 5)


def test_rows_of_layers_nest() -> None:
    class Shift(unet.TimestepBlock):
        def forward(self, x: Tensor, emb: Tensor) -> Tensor:
            return x + emb.view(-1, 1, 1)

    row = unet.TimestepEmbedSequential(nn.Identity(), unet.TimestepEmbedSequential(Shift(), nn.ReLU()), Shift())
    out = row(torch.zeros(2, 1, 1), torch.tensor([1.0, -1.0]))
    assert out.flatten().tolist() == [2, -1]
