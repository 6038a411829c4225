"""Radial bands sum to 1; gates are the identity at first and scale bands; presets filter the skips of their levels."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rediffuse.errors import ConfigError
from rediffuse.models.config import EncoderConfig, FrequencyConfig, Preset, UNetConfig
from rediffuse.models.encoder import EncoderUNetModel
from rediffuse.models.flops import flops
from rediffuse.models.frequency import (
    FrequencyGate,
    amplify,
    filter_bands,
    fixed_gains,
    preset_gains,
    radial_bands,
)
from rediffuse.models.superres import SuperResModel
from rediffuse.models.unet import UNetModel
from rediffuse.zoo.published import PUBLISHED

SHAPES = {1: (16,), 2: (8, 6), 3: (3, 8, 6)}
GATES = FrequencyConfig(num_bands=5, num_groups=16, hidden=3)
TINY = UNetConfig(image_size=8, model_channels=32, channel_mult=(1, 2), num_res_blocks=1, frequency=GATES)


def with_weights(network: torch.nn.Module, scale: float = 0.5) -> Any:
    """The same network with random values in all weights, also in those that are initialised to zero."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data.normal_(0, scale / math.sqrt(max(1, parameter[0].numel())), generator=generator)
    return network.eval()


def ungated(network: UNetModel) -> UNetModel:
    """The network without gates and with the same other weights."""
    bare = UNetModel(replace(network.config, frequency=None)).eval()
    bare.load_state_dict({name: t for name, t in network.state_dict().items() if not name.startswith("frequency.")})
    return bare


def without_gains(network: UNetModel) -> UNetModel:
    for gate in network.frequency:
        assert isinstance(gate, FrequencyGate)
        gate.reset_parameters()
    return network


def images(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- bands ------------------------------------------------------------------------------------------------------------


@given(height=st.integers(1, 40), width=st.integers(1, 40), num_bands=st.integers(2, 12))
def test_bands_sum_to_one_everywhere(height: int, width: int, num_bands: int) -> None:
    bands = radial_bands((height, width), num_bands)
    assert bands.shape == (num_bands, height, width // 2 + 1)
    assert bands.min() >= 0
    torch.testing.assert_close(bands.sum(0), torch.ones(height, width // 2 + 1))


def test_first_band_has_the_mean_and_last_band_the_checkerboard() -> None:
    bands = radial_bands((16, 16))
    assert bands[:, 0, 0].tolist() == [1, 0, 0, 0, 0, 0, 0, 0]
    assert bands[:, 8, 8].tolist() == pytest.approx([0, 0, 0, 0, 0, 0, 0, 1], abs=1e-6)


def test_bands_of_a_signal_reach_from_its_mean_to_its_fastest_alternation() -> None:
    bands = radial_bands((16,), 3)
    assert bands.shape == (3, 9)
    torch.testing.assert_close(bands[:, [0, 4, 8]], torch.eye(3))


def test_the_band_of_a_frequency_does_not_depend_on_the_resolution() -> None:
    torch.testing.assert_close(radial_bands((32, 64))[:, ::2, ::4], radial_bands((16, 16)))


def test_bands_made_in_inference_mode_can_be_trained_with() -> None:
    with torch.inference_mode():
        bands = radial_bands((6, 10), 3)
    gain = torch.ones(3, 1, 1, requires_grad=True)
    (gain * bands).sum().backward()
    assert gain.grad is not None


def test_bands_are_cached() -> None:
    assert radial_bands((16, 16), dtype=torch.float64) is radial_bands((16, 16), dtype=torch.float64)


def test_one_band_is_refused() -> None:
    with pytest.raises(ConfigError, match="num_bands=1: at least 2"):
        radial_bands((16, 16), 1)


# --- the filter -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", SHAPES)
def test_equal_gains_scale_the_whole_map(dims: int) -> None:
    x = images(2, 4, *SHAPES[dims])
    torch.testing.assert_close(filter_bands(x, torch.full((1, 1, 5), 0.25), dims), 1.25 * x)


def test_a_gain_scales_the_waves_of_its_band_alone() -> None:
    row = torch.arange(16.0)
    slow, fast = (torch.cos(2 * math.pi * cycles * row / 16).expand(1, 1, 16, 16) for cycles in (0, 8))
    band = round(0.5 / math.sqrt(0.5) * 8)  # of 9 bands, the two about 0.5 cycles per pixel
    gains = torch.zeros(1, 1, 9)
    gains[..., band - 1 : band + 1] = -1
    changed = filter_bands(slow + fast, gains)
    expected = slow + fast * (1 - radial_bands((16, 16), 9)[band - 1 : band + 1, 0, 8].sum())
    torch.testing.assert_close(changed, expected)


def test_every_group_of_channels_and_every_image_has_gains_of_its_own() -> None:
    x = images(2, 6, 8, 8)
    gains = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, -1.0]])[:, :, None].expand(2, 3, 4)
    factors = torch.tensor([[1, 1, 2, 2, 1, 1], [1, 1, 1, 1, 0, 0]])
    torch.testing.assert_close(filter_bands(x, gains), x * factors[:, :, None, None])


def test_a_volume_is_filtered_slice_by_slice() -> None:
    x, gains = images(2, 4, 3, 8, 6), images(2, 2, 5)
    slices = torch.stack([filter_bands(x[:, :, depth], gains) for depth in range(3)], dim=2)
    torch.testing.assert_close(filter_bands(x, gains, dims=3), slices)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_transformed_in_float32_at_any_size(dtype: torch.dtype) -> None:
    x, gains = images(1, 2, 7, 10).to(dtype), images(1, 1, 8)
    changed = filter_bands(x, gains)
    assert changed.dtype == dtype
    torch.testing.assert_close(changed, filter_bands(x.float(), gains).to(dtype))


def test_autocast_does_not_reach_the_filter() -> None:
    x, gains = images(1, 2, 8, 8), images(1, 1, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        changed = filter_bands(x, gains)
    assert torch.equal(changed, filter_bands(x, gains))


# --- the gate ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dims", SHAPES)
def test_a_gate_begins_as_the_identity_to_the_bit(dims: int, dtype: torch.dtype) -> None:
    gate = FrequencyGate(32, 8, FrequencyConfig(), dims)
    x, emb = images(2, 32, *SHAPES[dims]).to(dtype), images(2, 8)
    assert torch.equal(gate(x, emb), x)  # with gradients, where it is computed
    with torch.no_grad():
        assert gate(x, emb) is x


def test_gradients_reach_the_offset_and_the_last_layer_at_the_first_step() -> None:
    gate = FrequencyGate(32, 8, FrequencyConfig())
    gate(images(2, 32, 8, 8), images(2, 8)).square().sum().backward()
    for parameter in (gate.offset, gate.out.weight):
        assert parameter.grad is not None
        assert (parameter.grad != 0).all()


@pytest.mark.parametrize("dims", SHAPES)
def test_gradients_are_those_of_finite_differences(dims: int) -> None:
    gate = with_weights(FrequencyGate(4, 3, FrequencyConfig(num_bands=3, num_groups=2, hidden=2), dims).double())
    names, weights = zip(*gate.named_parameters(), strict=True)

    def function(x: Tensor, emb: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(gate, dict(zip(names, values, strict=True)), (x, emb))

    size = {1: (5,), 2: (4, 3), 3: (2, 4, 3)}[dims]
    inputs = (images(2, 4, *size).double().requires_grad_(), images(2, 3).double().requires_grad_(), *weights)
    assert torch.autograd.gradcheck(function, inputs)


def test_gains_follow_the_timestep_and_stay_below_one() -> None:
    gate = with_weights(FrequencyGate(32, 8, FrequencyConfig()), scale=20)
    gains = gate.gains(images(3, 8))
    assert gains.shape == (3, 32, 8)
    assert gains.abs().max() <= 1
    assert not torch.equal(gains[0], gains[1])


@pytest.mark.parametrize("preset", ["trained", "freeu:1.3"])
def test_the_compiler_takes_a_gated_network_whole(preset: str) -> None:
    network = with_weights(UNetModel(TINY))
    x, t = images(2, 3, 8, 8), torch.tensor([3.0, 500.0])
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    frequency = Preset.parse(preset)
    torch.testing.assert_close(compiled(x, t, frequency=frequency), network(x, t, frequency=frequency))


# --- in the networks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", SHAPES)
def test_a_u_net_has_a_gate_on_every_skip_and_begins_as_the_one_without(dims: int) -> None:
    network = without_gains(with_weights(UNetModel(replace(TINY, dims=dims))))
    assert len(network.frequency) == len(network.input_blocks)
    x, t = images(2, 3, *(8,) * dims), torch.tensor([3.0, 500.0])
    assert torch.equal(network(x, t), ungated(network)(x, t))


def test_gates_leave_the_initial_weights_of_the_rest_alone() -> None:
    states = []
    for config in (TINY, replace(TINY, frequency=None)):
        torch.manual_seed(0)
        states.append(UNetModel(config).state_dict())
    gated, bare = states
    assert {name for name in gated if name not in bare} == {n for n in gated if n.startswith("frequency.")} != set()
    assert all(torch.equal(gated[name], tensor) for name, tensor in bare.items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_torso_is_gated_to_the_bit_too(dtype: torch.dtype) -> None:
    network = without_gains(with_weights(UNetModel(TINY)))
    x, t = images(1, 3, 8, 8), torch.tensor([3.0])
    bare = ungated(network).to_torso_dtype(dtype)
    with torch.no_grad():
        assert torch.equal(network.to_torso_dtype(dtype)(x, t), bare(x, t))


def test_trained_gates_act_and_off_turns_them_off() -> None:
    network = with_weights(UNetModel(TINY))
    x, t = images(2, 3, 8, 8), torch.tensor([3.0, 500.0])
    bare = ungated(network)(x, t)
    assert not torch.allclose(network(x, t), bare, atol=1e-3)
    assert torch.equal(network(x, t, frequency=Preset("off")), bare)


def test_an_upsampler_is_gated_and_takes_presets() -> None:
    network = with_weights(SuperResModel(TINY))
    assert len(network.frequency) == len(network.input_blocks)
    call = (images(1, 3, 8, 8), torch.tensor([3.0]), images(1, 3, 4, 4))
    outputs = [network(*call, frequency=Preset(name)) for name in ("trained", "off", "freeu", "sharpen", "lowpass")]
    assert all(not torch.equal(a, b) for i, a in enumerate(outputs) for b in outputs[:i])


def test_an_encoder_has_a_gate_after_every_level_and_begins_as_the_one_without() -> None:
    config = EncoderConfig(image_size=8, model_channels=32, channel_mult=(1, 2), out_channels=3, num_res_blocks=2)
    bare = with_weights(EncoderUNetModel(config))
    gated = EncoderUNetModel(replace(config, frequency=GATES)).eval()
    missing = gated.load_state_dict(bare.state_dict(), strict=False).missing_keys
    assert missing == [name for name in gated.state_dict() if name.startswith("frequency.")]
    assert len(gated.frequency) == 2
    x, t = images(2, 3, 8, 8), torch.tensor([3.0, 500.0])
    assert torch.equal(gated(x, t), bare(x, t))
    assert not torch.equal(with_weights(gated)(x, t), bare(x, t))


def test_gates_run_at_other_sizes_than_they_were_trained_at() -> None:
    network = with_weights(UNetModel(TINY))
    assert network(images(1, 3, 12, 20), torch.tensor([3.0])).shape == (1, 3, 12, 20)


def test_the_operation_counter_knows_gates() -> None:
    """One skip of 32 channels at 8 x 8: two transforms of 5/2 n log2 n each, gains times bands, and the two layers."""
    config = replace(TINY, channel_mult=(1,), frequency=FrequencyConfig(num_bands=8, num_groups=32, hidden=16))
    transform = round(2.5 * 32 * 64 * math.log2(64))
    gate = 2 * transform + 2 * 32 * 8 * (8 * 2 * 5) + 2 * (4 * 32 * 16 + 16 * 32 * 8)
    with_gates, without = (flops(UNetModel(c), (1, 3, 8, 8)) for c in (config, replace(config, frequency=None)))
    assert with_gates - without == 2 * gate  # the stem's skip and the block's


def test_gates_add_less_than_a_thousandth_of_parameters_and_a_quarter_percent_of_operations_at_256_px() -> None:
    config = PUBLISHED["256x256_diffusion_uncond"].network
    assert isinstance(config, UNetConfig)
    with torch.device("meta"):
        bare, gated = UNetModel(config), UNetModel(replace(config, frequency=FrequencyConfig()))
    assert len(gated.frequency) == 18
    assert sum(parameter.numel() for parameter in gated.frequency.parameters()) == 373_536
    operations = [flops(network, (1, 3, 256, 256)) for network in (bare, gated)]
    assert operations[1] / 1e9 == pytest.approx(2245, abs=1)
    assert (operations[1] - operations[0]) / 1e9 == pytest.approx(5.4, abs=0.1)


# --- presets ----------------------------------------------------------------------------------------------------------


def test_freeu_damps_the_lowest_band_at_the_two_deepest_levels() -> None:
    gains = [preset_gains(Preset("freeu"), level, 4) for level in range(4)]
    assert gains[:2] == [None, None]
    assert gains[2] == pytest.approx((-0.8, *(0,) * 7))
    assert gains[3] == pytest.approx((-0.1, *(0,) * 7))


@pytest.mark.parametrize(("name", "sign"), [("sharpen", 1), ("lowpass", -1)])
def test_sharpen_and_lowpass_act_on_high_bands_at_the_two_finest_levels(name: Any, sign: int) -> None:
    for level in range(4):
        gains = preset_gains(Preset(name), level, 4)
        if level >= 2:
            assert gains is None
        else:
            assert gains is not None
            assert gains[:4] == (0, 0, 0, 0)
            heights = [sign * gain for gain in gains[4:]]
            assert heights == sorted(heights)
            assert heights[0] > 0


def test_a_preset_does_not_depend_on_the_number_of_channels() -> None:
    assert preset_gains(Preset("lowpass"), 0, 2) == preset_gains(Preset("lowpass"), 0, 6)


def test_the_backbone_factor_acts_on_half_the_channels_by_up_to_its_size() -> None:
    h = images(2, 8, 5, 5)
    amplified = amplify(h, 1.4)
    assert torch.equal(amplified[:, 4:], h[:, 4:])
    ratio = (amplified / h)[:, :4]
    mean = h.mean(dim=1)
    for image in range(2):
        place = divmod(int(mean[image].argmax()), 5)
        torch.testing.assert_close(ratio[image, :, place[0], place[1]], torch.full((4,), 1.4))
        place = divmod(int(mean[image].argmin()), 5)
        torch.testing.assert_close(ratio[image, :, place[0], place[1]], torch.ones(4))


def test_a_flat_backbone_is_left_alone() -> None:
    assert torch.equal(amplify(torch.ones(1, 4, 3, 3), 1.5), torch.ones(1, 4, 3, 3))


def test_freeu_with_a_factor_changes_more_than_without() -> None:
    network = with_weights(UNetModel(replace(TINY, frequency=None)))
    x, t = images(2, 3, 8, 8), torch.tensor([3.0, 500.0])
    plain, freeu, factor = (network(x, t, frequency=Preset.parse(text)) for text in ("off", "freeu", "freeu:1.4"))
    assert not torch.equal(freeu, plain)
    assert not torch.equal(factor, freeu)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("fre", "trained, off, freeu, sharpen, lowpass and freeu:B are allowed; did you mean freeu?"),
        ("sharpen:2", "frequency=sharpen:2: trained"),
        ("freeu:x", "frequency=freeu:x: the backbone factor B has to be more than 0 and at most 2"),
        ("freeu:0", "more than 0"),
    ],
)
def test_a_preset_that_is_none_is_refused(text: str, line: str) -> None:
    with pytest.raises(ConfigError) as error:
        Preset.parse(text)
    assert line in str(error.value)


def test_the_gains_of_a_preset_are_made_once() -> None:
    """A tensor that is made of numbers is copied to a GPU, which has to finish its work before."""
    half, full = (torch.zeros(1, dtype=dtype) for dtype in (torch.bfloat16, torch.float32))
    assert fixed_gains((0.1, 0.2), half) is fixed_gains((0.1, 0.2), full)
    assert fixed_gains((0.1, 0.2), half).shape == (1, 1, 2)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"num_bands": 1}, "num_bands=1: at least 2"),
        ({"num_groups": 3}, "num_groups=3: 1, 2, 4, 8, 16, 32 are allowed"),
        ({"hidden": 0}, "hidden=0: at least 1"),
    ],
)
def test_gates_that_cannot_be_are_refused(fields: dict[str, int], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        FrequencyConfig(**fields)
