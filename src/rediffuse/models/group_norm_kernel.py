"""Group normalisation with SiLU of feature maps with channels innermost, as Triton kernels for a GPU.

They read a map twice and write it once. torch's kernel for a GPU also copies the map into another layout, and a scale,
a shift and SiLU each read and write it again.

They have been run by Triton's interpreter on a CPU (`tests/models/test_group_norm_kernel.py`), but not yet on a GPU.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

LANES = 64
"""Channels that a program reads side by side, where there are so many: whole lines of memory."""
ELEMENTS = 2048
"""Numbers that a program holds at a time."""
MOST_CHUNKS = 32
"""Programs that share the pixels of one image."""


def group_norm(x: Tensor, num_groups: int, weight: Tensor, bias: Tensor, eps: float, *, silu: bool) -> Tensor:
    """norm(x) (arXiv:1803.08494) or silu(norm(x)), like x; the arithmetic is in float32.

    Args:
        x: (N, C, H, W), channels innermost, in float32, float16 or bfloat16.
        num_groups: G, dividing C.
        weight: (C,), or (N, C) for each image, contiguous: the factor after the normalisation.
        bias: like weight, the term after it.
        eps: added to the variance.
        silu: whether SiLU follows.
    """
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert weight.is_contiguous()
    assert bias.is_contiguous()
    num_images, channels, height, width = x.shape
    pixels, per_group = height * width, channels // num_groups
    group_lanes = triton.next_power_of_2(per_group)
    groups = min(triton.next_power_of_2(num_groups), max(1, LANES // group_lanes))
    rows = min(triton.next_power_of_2(pixels), max(1, ELEMENTS // (groups * group_lanes)))
    chunk = triton.cdiv(triton.cdiv(pixels, MOST_CHUNKS), rows) * rows
    num_chunks = triton.cdiv(pixels, chunk)
    y = torch.empty_like(x)
    moments = x.new_empty(3, num_images, num_groups, num_chunks, dtype=torch.float32)
    grid = (num_images, triton.cdiv(num_groups, groups), num_chunks)
    shape = (pixels, num_groups, chunk)
    block: dict[str, Any] = {"PER_GROUP": per_group, "GROUPS": groups, "GROUP_LANES": group_lanes, "ROWS": rows}
    block["enable_fp_fusion"] = True
    chunks = {"CHUNKS": triton.next_power_of_2(num_chunks), "SILU": silu}
    affine = (weight, bias, channels if weight.ndim == 2 else 0, eps)
    with torch.cuda.device_of(x):
        _measure[grid](x, moments, *shape, **block)
        _normalise[grid](x, y, moments, *affine, *shape, **block, **chunks)
    return y


@triton.jit
def _measure(
    x,
    moments,
    pixels,
    num_groups,
    chunk,
    PER_GROUP: tl.constexpr,
    GROUPS: tl.constexpr,
    GROUP_LANES: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Of each group in a chunk the number of values, their mean, and the sum of their squared distances from it.

    Every lane of every row has running moments (Welford, 1962), so that no digits are lost where the mean is large.
    """
    LANES: tl.constexpr = GROUPS * GROUP_LANES
    channel, has_channel = _lanes(num_groups, PER_GROUP, GROUPS, GROUP_LANES)
    first, rows = tl.program_id(2) * chunk, tl.arange(0, ROWS)
    end = tl.minimum(first + chunk, pixels)
    mean = tl.zeros([ROWS, LANES], tl.float32)
    squares = tl.zeros([ROWS, LANES], tl.float32)
    count = 0.0
    for begin in range(first, end, ROWS):
        count += 1
        place, is_there = _places(begin + rows, channel, has_channel, pixels, num_groups * PER_GROUP)
        value = tl.load(x + place, is_there, 0).to(tl.float32)
        delta = value - mean
        mean += tl.where(is_there, delta * (1 / count), 0)
        squares += tl.where(is_there, delta * (value - mean), 0)
    number = (end - first - rows + ROWS - 1) // ROWS
    number = tl.where(has_channel[None, :], number[:, None], 0).to(tl.float32)
    number, mean, squares = _joined(number, mean, squares, 0)
    number, mean, squares = _joined(
        tl.reshape(number, [GROUPS, GROUP_LANES]),
        tl.reshape(mean, [GROUPS, GROUP_LANES]),
        tl.reshape(squares, [GROUPS, GROUP_LANES]),
        1,
    )
    group = tl.program_id(1) * GROUPS + tl.arange(0, GROUPS)
    moments += (tl.program_id(0) * num_groups + group) * tl.num_programs(2) + tl.program_id(2)
    apart = tl.num_programs(0) * num_groups * tl.num_programs(2)
    tl.store(moments, number, group < num_groups)
    tl.store(moments + apart, mean, group < num_groups)
    tl.store(moments + 2 * apart, squares, group < num_groups)


@triton.jit
def _normalise(
    x,
    y,
    moments,
    weight,
    bias,
    of_image,
    eps,
    pixels,
    num_groups,
    chunk,
    PER_GROUP: tl.constexpr,
    GROUPS: tl.constexpr,
    GROUP_LANES: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNKS: tl.constexpr,
    SILU: tl.constexpr,
):
    """y of a chunk, from the moments of all chunks of its image."""
    LANES: tl.constexpr = GROUPS * GROUP_LANES
    group = tl.program_id(1) * GROUPS + tl.arange(0, GROUPS)
    chunks = tl.arange(0, CHUNKS)
    moments += ((tl.program_id(0) * num_groups + group) * tl.num_programs(2))[:, None] + chunks[None, :]
    apart = tl.num_programs(0) * num_groups * tl.num_programs(2)
    has_chunk = (group < num_groups)[:, None] & (chunks < tl.num_programs(2))[None, :]
    number = tl.load(moments, has_chunk, 0)
    mean = tl.load(moments + apart, has_chunk, 0)
    squares = tl.load(moments + 2 * apart, has_chunk, 0)
    number, mean, squares = _joined(number, mean, squares, 1)
    factor = 1 / tl.sqrt(squares / tl.maximum(number, 1) + eps)
    mean = tl.reshape(tl.broadcast_to(mean[:, None], [GROUPS, GROUP_LANES]), [LANES])
    factor = tl.reshape(tl.broadcast_to(factor[:, None], [GROUPS, GROUP_LANES]), [LANES])
    channel, has_channel = _lanes(num_groups, PER_GROUP, GROUPS, GROUP_LANES)
    of_channel = tl.program_id(0) * of_image + channel
    factor *= tl.load(weight + of_channel, has_channel, 0).to(tl.float32)
    term = tl.load(bias + of_channel, has_channel, 0).to(tl.float32)
    first, rows = tl.program_id(2) * chunk, tl.arange(0, ROWS)
    for begin in range(first, tl.minimum(first + chunk, pixels), ROWS):
        place, is_there = _places(begin + rows, channel, has_channel, pixels, num_groups * PER_GROUP)
        value = (tl.load(x + place, is_there, 0).to(tl.float32) - mean[None, :]) * factor[None, :] + term[None, :]
        if SILU:
            value *= tl.sigmoid(value)
        tl.store(y + place, value.to(y.dtype.element_ty), is_there)


@triton.jit
def _lanes(num_groups, PER_GROUP: tl.constexpr, GROUPS: tl.constexpr, GROUP_LANES: tl.constexpr):
    """The channel of each lane, and whether it is one: each group begins at a multiple of GROUP_LANES."""
    lane = tl.program_id(1) * GROUPS * GROUP_LANES + tl.arange(0, GROUPS * GROUP_LANES)
    group, inner = lane // GROUP_LANES, lane % GROUP_LANES
    if PER_GROUP == GROUP_LANES:  # then the compiler knows that lanes are side by side
        return lane, group < num_groups
    return group * PER_GROUP + inner, (group < num_groups) & (inner < PER_GROUP)


@triton.jit
def _places(row, channel, has_channel, pixels, channels):
    """Where the channels of these pixels are in the program's image, and whether they are there."""
    image = tl.program_id(0).to(tl.int64) * pixels
    return (image + row)[:, None] * channels + channel[None, :], (row < pixels)[:, None] & has_channel[None, :]


@triton.jit
def _joined(number, mean, squares, axis):
    """The moments of several sets of values together (Chan, Golub and LeVeque, 1979)."""
    total = tl.sum(number, axis)
    joint = tl.sum(number * mean, axis) / tl.maximum(total, 1)
    distance = mean - tl.expand_dims(joint, axis)
    return total, joint, tl.sum(squares + number * distance * distance, axis)
