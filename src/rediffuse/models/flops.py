"""How many operations one call of a network takes, counted without computing it."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from rediffuse.models.meta import forward_on_meta
from rediffuse.models.trunk import Trunk


def flops(model: Trunk, shape: Sequence[int]) -> int:
    """Operations of one forward pass on an input of `shape` (N, C, ...): 2 per multiply-add.

    Counted are convolutions, linear maps, attention and Fourier transforms, not the pointwise rest, on the meta
    device: neither the weights nor the device of `model` are touched. Raises ConfigError where the shape does not fit.
    """
    counter = FlopCounterMode(display=False, custom_mapping=_FOURIER)
    forward_on_meta(model, shape, counter)
    return counter.get_total_flops()


def _transform(x: list[int], axes: list[int], *_: Any, out_shape: list[int], **__: Any) -> int:
    """Of a real transform over `axes`: half the 5 n log2 n of a complex one (Cooley and Tukey 1965)."""
    shape = max(x, out_shape, key=math.prod)  # the real side, whichever it is
    points = math.prod(shape[axis] for axis in axes)
    return round(2.5 * math.prod(shape) * math.log2(points)) if points > 1 else 0


_FOURIER = {torch.ops.aten._fft_r2c: _transform, torch.ops.aten._fft_c2r: _transform}
