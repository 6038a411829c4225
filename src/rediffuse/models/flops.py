"""Count the operations of one forward pass without computing it."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rediffuse.models.meta import forward_on_meta


def flops(model: nn.Module, shape: Sequence[int]) -> int:
    """Operations of one forward pass on an input of `shape` (N, C, ...): 2 per multiply-add.

    Counts convolutions, linear maps, attention and Fourier transforms, but no pointwise operations. Runs on the meta
    device and does not change `model`. Raises ConfigError where the shape does not fit.
    """
    counter = FlopCounterMode(display=False, custom_mapping=_FOURIER)
    forward_on_meta(model, shape, counter)
    return counter.get_total_flops()


def _transform(x: list[int], axes: list[int], *_: Any, out_shape: list[int], **__: Any) -> int:
    """Operations of a real transform over `axes`: half of a complex one's 5 n log2 n (Cooley and Tukey 1965)."""
    shape = max(x, out_shape, key=math.prod)  # that of the real tensor, the input or the output
    points = math.prod(shape[axis] for axis in axes)
    return round(2.5 * math.prod(shape) * math.log2(points)) if points > 1 else 0


_FOURIER = {torch.ops.aten._fft_r2c: _transform, torch.ops.aten._fft_c2r: _transform}
