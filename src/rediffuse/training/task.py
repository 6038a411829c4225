"""The interface between the training loop and a training: `Task` and its `Data`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from rediffuse.progress import Progress, unobserved
from rediffuse.training.randomness import Place

Batch = dict[str, Tensor]
"""Tensors whose first dimension is the sample: those of the data, and those that `draw` adds."""
Terms = dict[str, Tensor]
"""The terms of a loss, (N,) tensors; the one named `loss` is minimised."""


class Data(Protocol):
    """Images and their labels, by position in the training."""

    @property
    def fingerprint(self) -> str:
        """A hash of the data; a run can be resumed only with equal data."""
        ...

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes in the order of their labels; empty without classes."""
        ...

    @property
    def skipped(self) -> Sequence[str]:
        """The errors of files that could not be used, one line each."""
        ...

    def write_index(self, path: Path) -> None:
        """Write the list of the images to a file, for `Task.data` in later calls."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, positions: range) -> Batch:
        """The samples at these positions of the training, which have no end; every epoch has another order."""
        ...


class Task(Protocol):
    """A training. A subclass implements the first six methods; the others have defaults that do nothing."""

    name: str

    def describe(self) -> Mapping[str, Any]:
        """All settings of this training except those of the loop, as JSON values."""
        ...

    def build(self) -> nn.Module:
        """The network with random initial weights from torch's global generator, which the loop has seeded."""
        ...

    def data(self, progress: Progress = unobserved, index: Path | None = None) -> Data:
        """The training data.

        Args:
            progress: called with the number of images that are read.
            index: a file of `Data.write_index`, which may be missing.
        """
        ...

    def draw(self, batch: Batch, place: Place) -> Batch:
        """Add the random numbers that the loss needs (timesteps, noise) to the batch.

        They depend only on `place`, and with `draws_from_losses` on the losses that `observe` was given. Otherwise it
        is called in a thread, while steps before this one are computed.
        """
        ...

    def loss(self, network: nn.Module, batch: Batch) -> Terms:
        """The terms of the loss of every sample, on the network's device, for a part of a drawn batch."""
        ...

    def export(self, network: nn.Module, folder: Path, training: Mapping[str, Any]) -> None:
        """Write the finished model to `folder`; `training` is the record of the run to save with it."""
        ...

    @property
    def draws_from_losses(self) -> bool:
        """Whether `draw` needs what `observe` got of all steps before; then no step begins before the last one ends."""
        return False

    def observe(self, terms: Terms) -> dict[str, Tensor]:
        """Update statistics from the loss terms of a step, of all processes in order; return the values to log."""
        return terms

    def evaluate(self, network: nn.Module, folder: Path, step: int) -> dict[str, float]:
        """Evaluate the averaged weights: write pictures to `folder`, return figures for the log."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """The statistics that `observe` has collected."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
