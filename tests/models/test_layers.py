"""The layers of the networks, each tested alone."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from rediffuse.models import layers
from rediffuse.models.layers import (
    BlockOptions,
    Downsample,
    GroupNorm,
    ResBlock,
    TimestepEmbedSequential,
    Upsample,
    timestep_embedding,
)


def test_timestep_embedding_has_cosines_then_sines_then_a_zero() -> None:
    embedding = timestep_embedding(torch.tensor([0.0, 2.5]), 5, max_period=100)
    frequencies = (1.0, 1 / math.sqrt(100))
    expected = [[f(2.5 * w) for f in (math.cos, math.sin) for w in frequencies]]
    torch.testing.assert_close(embedding[:1], torch.tensor([[1.0, 1, 0, 0, 0]]))
    torch.testing.assert_close(embedding[1:, :4], torch.tensor(expected))
    assert embedding[1, 4] == 0


@pytest.mark.parametrize(
    ("dims", "before", "after"),
    [(1, (8,), (16,)), (2, (8, 6), (16, 12)), (3, (5, 8, 6), (5, 16, 12))],
)
@pytest.mark.parametrize("use_conv", [False, True])
def test_resampling_keeps_the_depth_of_volumes(
    dims: int, before: tuple[int, ...], after: tuple[int, ...], use_conv: bool
) -> None:
    x = torch.randn(1, 4, *before)
    up = Upsample(4, use_conv, dims)(x)
    assert up.shape[2:] == after
    assert Downsample(4, use_conv, dims)(up).shape[2:] == before


def test_averaging_undoes_repetition() -> None:
    x = torch.randn(1, 4, 6, 6)
    torch.testing.assert_close(Downsample(4, False)(Upsample(4, False)(x)), x)


def test_group_norm_of_half_precision_does_not_overflow() -> None:
    x = 300 * torch.randn(1, 32, 64, 64, dtype=torch.float16)  # the squares are beyond half precision's 65504
    y = GroupNorm(32)(x)
    assert y.dtype == torch.float16
    assert y.float().std().item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("use_scale_shift_norm", [False, True])
def test_residual_block_starts_as_the_identity(use_scale_shift_norm: bool) -> None:
    block = ResBlock(32, 32, BlockOptions(emb_channels=8, use_scale_shift_norm=use_scale_shift_norm))
    x = torch.randn(2, 32, 4, 4)
    torch.testing.assert_close(block(x, torch.randn(2, 8)), x, rtol=0, atol=0)


@pytest.mark.parametrize(("resample", "side"), [("up", 8), ("down", 2)])
def test_resampling_inside_a_residual_block_holds_no_parameters(resample: str, side: int) -> None:
    options = BlockOptions(emb_channels=8)
    block = ResBlock(32, 64, options, resample=resample)  # pyright: ignore[reportArgumentType]
    assert block(torch.randn(2, 32, 4, 4), torch.randn(2, 8)).shape == (2, 64, side, side)
    assert block.state_dict().keys() == ResBlock(32, 64, options).state_dict().keys()


@pytest.mark.parametrize(("use_conv", "kernel"), [(False, (1, 1)), (True, (3, 3))])
def test_shortcut_is_a_convolution_where_channels_change(use_conv: bool, kernel: tuple[int, int]) -> None:
    block = ResBlock(32, 64, BlockOptions(emb_channels=8), use_conv=use_conv)
    assert block.skip_connection.get_parameter("weight").shape[2:] == kernel


def test_sequential_gives_the_embedding_only_to_blocks_that_take_it() -> None:
    block = ResBlock(32, 32, BlockOptions(emb_channels=8))
    x = torch.randn(1, 32, 4, 4)
    torch.testing.assert_close(TimestepEmbedSequential(nn.SiLU(), block)(x, torch.randn(1, 8)), nn.functional.silu(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(16, 64, 16, 16), (1, 64, 16, 16), (3, 64, 32, 32)])
@pytest.mark.parametrize("num_rows", [None, 1, "all"])
@pytest.mark.parametrize("has_kernel", [True, False])
def test_inference_normalises_as_the_separate_steps(
    dtype: torch.dtype,
    shape: tuple[int, ...],
    num_rows: int | str | None,
    has_kernel: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not has_kernel:
        monkeypatch.setattr(layers, "load_kernel", lambda: None)
    torch.manual_seed(0)
    norm = GroupNorm(64)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = (3 + torch.randn(shape)).to(dtype).to(memory_format=torch.channels_last)
    scale_shift = None
    expected = F.group_norm(x.float(), 32, norm.weight, norm.bias)
    if num_rows is not None:
        rows = shape[0] if num_rows == "all" else 1
        scale, shift = torch.randn(2, rows, 64, 1, 1).to(dtype)
        scale_shift = torch.cat([scale, shift], dim=1).flatten(1)
        expected = expected * (1 + scale.float()) + shift.float()
    with torch.inference_mode():
        given = norm.silu(x, scale_shift)
    assert given.dtype == dtype
    assert given.is_contiguous(memory_format=torch.channels_last)
    tolerance = 2e-5 if dtype == torch.float32 else 0.1
    torch.testing.assert_close(given.float(), F.silu(expected), atol=tolerance, rtol=tolerance)


def test_torch_does_not_normalise_small_maps_with_their_channels_innermost(monkeypatch: pytest.MonkeyPatch) -> None:
    """There torch's kernel goes group by group, as slow as a convolution."""
    monkeypatch.setattr(layers, "load_kernel", lambda: None)
    x = torch.randn(16, 64, 16, 16).to(memory_format=torch.channels_last)
    with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
        GroupNorm(64).silu(x)
    copies = [event for event in seen.key_averages() if event.key == "aten::clone"]
    assert sum(event.count for event in copies) == 2  # before and after
