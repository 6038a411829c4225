"""Where random numbers come from: a callable that is given a tensor and returns a standard normal one like it."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Noise = Callable[[Tensor], Tensor]


def from_generator(generator: torch.Generator) -> Noise:
    """Draw from `generator`, on its own device, and move the numbers to where they are needed."""

    def draw(x: Tensor) -> Tensor:
        z = torch.randn(x.shape, generator=generator, device=generator.device, dtype=x.dtype)
        return z.to(x.device)

    return draw


class PerSampleNoise:
    """Noise whose i-th sample comes from the i-th seed alone.

    A sample is then the same in any batch, on any number of processes, and on any device: the numbers are drawn on the
    CPU. Draws with one object continue each sample's own stream.

    Args:
        seeds: one per sample; the lowest 32 bits count.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self._generators = [torch.Generator().manual_seed(seed % 2**32) for seed in seeds]

    def __call__(self, x: Tensor) -> Tensor:
        """(N, ...) like x, whose N is the number of seeds."""
        assert len(x) == len(self._generators), f"{len(x)} samples, {len(self._generators)} seeds"
        return self.normal(x.shape[1:], dtype=x.dtype).to(x.device)

    def normal(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """(N, *shape) on the CPU: x_T, say, before there is any tensor to be like."""
        z = torch.empty(len(self._generators), *shape, dtype=dtype)
        for row, generator in zip(z, self._generators, strict=True):
            torch.randn(tuple(shape), generator=generator, out=row)
        return z
