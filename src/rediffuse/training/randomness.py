"""Random numbers of a training, as functions of the seed and the position in the training, without any other state.

So a run that was killed and resumed draws the same numbers as an uninterrupted one, and two processes the same as one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

INITIAL_WEIGHTS, ORDER, CROP, TIMESTEPS, NOISE, DROPOUT, GRID, VALIDATION = range(8)
"""Independent streams of random numbers. Add new ones at the end: changing a number changes the results of runs."""


def derive(seed: int, stream: int, *place: int) -> int:
    """A 64-bit seed for this stream and place only; all places of a stream must have the same length."""
    return int(np.random.SeedSequence((seed, stream, *place)).generate_state(1, np.uint64)[0])


@dataclass(frozen=True)
class Place:
    """The position of a batch in the training."""

    seed: int
    step: int
    batch_size: int
    """Batch size of the whole step, over all processes."""
    positions: range
    """Positions of this process's samples: `step * batch_size + i` is sample i of the step."""

    @property
    def in_batch(self) -> slice:
        """The part of the whole step's batch that this process has."""
        first = self.step * self.batch_size
        return slice(self.positions.start - first, self.positions.stop - first)

    def generator(self, stream: int) -> torch.Generator:
        """A generator for numbers that are drawn once for the whole step; equal on every process."""
        return torch.Generator().manual_seed(derive(self.seed, stream, self.step))

    def sample_seeds(self, stream: int) -> Sequence[int]:
        """One seed per sample of this process."""
        return [derive(self.seed, stream, position) for position in self.positions]
