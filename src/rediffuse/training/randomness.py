"""Every random number of a training is a function of the seed and of its place: nothing is carried from step to step.

So a run that was killed and resumed sees what an uninterrupted one sees, and two processes see what one would see.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

INITIAL_WEIGHTS, ORDER, CROP, TIMESTEPS, NOISE, DROPOUT, GRID, VALIDATION = range(8)
"""The streams. Numbers are part of what a run is: new streams are added at the end."""


def derive(seed: int, stream: int, *place: int) -> int:
    """A 64-bit seed that belongs to this stream and place alone; places of one stream have one length."""
    return int(np.random.SeedSequence((seed, stream, *place)).generate_state(1, np.uint64)[0])


@dataclass(frozen=True)
class Place:
    """Where in a training a batch stands."""

    seed: int
    step: int
    batch_size: int
    """Of the whole step, over all processes."""
    positions: range
    """The samples of this process: position `step * batch_size + i` is sample i of the step."""

    @property
    def in_batch(self) -> slice:
        """Which part of the whole step's batch the positions are."""
        first = self.step * self.batch_size
        return slice(self.positions.start - first, self.positions.stop - first)

    def generator(self, stream: int) -> torch.Generator:
        """For numbers drawn once for the whole step: the same on every process."""
        return torch.Generator().manual_seed(derive(self.seed, stream, self.step))

    def sample_seeds(self, stream: int) -> Sequence[int]:
        """One seed per sample of this process."""
        return [derive(self.seed, stream, position) for position in self.positions]
