"""How many operations one call of a network takes, counted without computing it."""

from collections.abc import Sequence

from torch.utils.flop_counter import FlopCounterMode

from rediffuse.models.meta import forward_on_meta
from rediffuse.models.trunk import Trunk


def flops(model: Trunk, shape: Sequence[int]) -> int:
    """Operations of one forward pass on an input of `shape` (N, C, ...): 2 per multiply-add.

    Counted are convolutions, linear maps and attention, not the pointwise rest, on the meta device: neither the
    weights nor the device of `model` are touched. Raises ConfigError where the shape does not fit the model.
    """
    counter = FlopCounterMode(display=False)
    forward_on_meta(model, shape, counter)
    return counter.get_total_flops()
