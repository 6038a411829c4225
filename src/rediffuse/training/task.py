"""What the training loop asks of the thing that is trained."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from rediffuse.progress import Progress, unobserved
from rediffuse.training.randomness import Place

Batch = dict[str, Tensor]
"""Tensors whose first dimension is the sample: what the data yield, and what `draw` adds."""
Terms = dict[str, Tensor]
"""What a loss returns: (N,) tensors; `loss` is minimised."""


class Data(Protocol):
    """Images and what belongs to them, by position in the training."""

    @property
    def fingerprint(self) -> str:
        """Equal for equal data: a run is resumed on the data it began with."""
        ...

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes that labels count; empty where there are none."""
        ...

    @property
    def skipped(self) -> Sequence[str]:
        """What could not be used, a line each."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, positions: range) -> Batch:
        """The samples that stand at these positions of the training: shuffled anew in every epoch, never ending."""
        ...


class Task(Protocol):
    """A training: subclass it and give the first six; the others have a meaning for some tasks only."""

    name: str

    def describe(self) -> Mapping[str, Any]:
        """Everything but the loop's settings that makes this training what it is, as JSON values."""
        ...

    def build(self) -> nn.Module:
        """The network with its initial weights, drawn from torch's global generator, which the loop has seeded."""
        ...

    def data(self, progress: Progress = unobserved) -> Data:
        """What it is trained on; `progress` is told how many images are read."""
        ...

    def draw(self, batch: Batch, place: Place) -> Batch:
        """The batch with the random numbers that its loss needs (timesteps, noise), all taken from `place`."""
        ...

    def loss(self, network: nn.Module, batch: Batch) -> Terms:
        """The terms of the loss of every sample, on the network's device, for a part of a drawn batch."""
        ...

    def export(self, network: nn.Module, folder: Path, training: Mapping[str, Any]) -> None:
        """Write the finished model into `folder`; `training` says where it comes from."""
        ...

    def observe(self, terms: Terms) -> dict[str, Tensor]:
        """Learn from the terms of a whole step, of all processes in order; return the values whose means are logged."""
        return terms

    def evaluate(self, network: nn.Module, folder: Path, step: int) -> dict[str, float]:
        """Judge averaged weights: write pictures into `folder`, return figures for the log."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What `observe` has learned."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
