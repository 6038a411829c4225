"""Sources of noise: callables that take a tensor and return a standard normal tensor of the same shape and type."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rediffuse.transfer import to_device

Noise = Callable[[Tensor], Tensor]


def from_generator(generator: torch.Generator) -> Noise:
    """Noise from `generator`: it is drawn on the generator's device, and moved to the device of the tensor."""

    def draw(x: Tensor) -> Tensor:
        z = torch.randn(x.shape, generator=generator, device=generator.device, dtype=x.dtype)
        return to_device(z, x.device)

    return draw


class PerSampleNoise:
    """Noise whose i-th sample depends only on the i-th seed.

    So a sample is the same in any batch, with any number of processes, and on any device, because the numbers are drawn
    on the CPU. Every call continues the random stream of each sample.

    Args:
        seeds: one per sample; only the lowest 32 bits are used.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self._generators = [torch.Generator().manual_seed(seed % 2**32) for seed in seeds]

    def __call__(self, x: Tensor) -> Tensor:
        """Noise (N, ...) like x, where N is the number of seeds."""
        assert len(x) == len(self._generators), f"{len(x)} samples, {len(self._generators)} seeds"
        return to_device(self.normal(x.shape[1:], dtype=x.dtype), x.device)

    def normal(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """Noise (N, *shape) on the CPU, for example x_T."""
        z = torch.empty(len(self._generators), *shape, dtype=dtype)
        for row, generator in zip(z, self._generators, strict=True):
            torch.randn(tuple(shape), generator=generator, out=row)
        return z
