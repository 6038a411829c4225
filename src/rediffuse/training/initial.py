"""Initial weights from another model, for fine-tuning. Tensors of another shape are left out, so classes may differ."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from rediffuse.errors import CheckpointError
from rediffuse.models.checkpoints import require_finite
from rediffuse.training.extract import extract, read_run_state
from rediffuse.zoo.find import find
from rediffuse.zoo.folder import Found


@dataclass(frozen=True, kw_only=True)
class Initial:
    """The weights of a model from which a training starts."""

    source: str
    """The model as given by the user."""
    sha256: str
    """SHA-256 of the file of weights, in hex."""
    state: Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """A tensor that only the network or only the source has, or that has different shapes in them."""

    name: str
    network: str | None
    """Its shape in the network, such as `320x4`; None if the network has no such tensor."""
    source: str | None
    """Its shape in the source; None if the source has no such tensor."""


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Which tensors of a model a network takes, and which not. `str` gives it as a table."""

    source: str
    sha256: str
    taken: dict[str, str]
    """Shapes of the tensors that are taken, by name."""
    not_taken: tuple[Mismatch, ...]

    def __str__(self) -> str:
        blocks = Counter(map(_block, self.taken))
        taken = [(f"{block}.*", f"{count} tensors") for block, count in blocks.items()]
        others = [
            (row.name, f"{row.network or 'none'} in the network, {row.source or 'none'} in the source")
            for row in self.not_taken
        ]
        width = max(len(name) for name, _ in taken + others)
        lines = [f"taken      {name:<{width}}  {what}" for name, what in taken]
        lines += [f"not taken  {name:<{width}}  {what}" for name, what in others]
        of_network = len(self.taken) + sum(row.network is not None for row in self.not_taken)
        return "\n".join([f"initial weights: {len(self.taken)} of {of_network} tensors from {self.source}", *lines])


def find_initial(source: str) -> Found:
    """The model from which a training starts.

    Args:
        source: as in `zoo.model.load`, or a checkpoint of a training run (then the average that the run exports).

    Raises:
        InputError, CheckpointError, FetchError: there is no such model, or it cannot be read.
    """
    path = Path(source)
    state = read_run_state(path)
    return find(source) if state is None else extract(state, path)


def read_initial(source: str) -> Initial:
    """The weights of a model; `source` and errors are those of `find_initial`.

    Raises:
        CheckpointError: some values are NaN or infinite.
    """
    found = find_initial(source)
    require_finite(found.state, source)
    return Initial(source=source, sha256=found.provenance.sha256, state=found.state)


def compare_with(network: Mapping[str, Tensor], initial: Initial) -> Transfer:
    """The tensors of `initial` that a network with this state_dict takes: those of equal name and shape.

    Raises:
        CheckpointError: no tensor fits.
    """
    taken = {
        name: _shape(tensor)
        for name, tensor in network.items()
        if name in initial.state and initial.state[name].shape == tensor.shape
    }
    if not taken:
        raise CheckpointError(f"{initial.source}: none of its {len(initial.state)} tensors fits the network to train")
    shapes = [{name: _shape(tensor) for name, tensor in state.items()} for state in (network, initial.state)]
    others = (name for name in dict.fromkeys([*network, *initial.state]) if name not in taken)
    return Transfer(
        source=initial.source,
        sha256=initial.sha256,
        taken=taken,
        not_taken=tuple(
            Mismatch(name=name, network=shapes[0].get(name), source=shapes[1].get(name)) for name in others
        ),
    )


@torch.no_grad()
def copy_fitting(network: nn.Module, initial: Initial) -> Transfer:
    """Copy the tensors that fit into the network, in its precision and on its device; returns as `compare_with`."""
    state = network.state_dict()
    transfer = compare_with(state, initial)
    for name in transfer.taken:
        state[name].copy_(initial.state[name])  # a state_dict shares the network's memory
    return transfer


def _block(name: str) -> str:
    """The block of a tensor: `input_blocks.3` for `input_blocks.3.0.in_layers.2.weight`."""
    parts = name.split(".")[:-1]
    return ".".join(parts[:2] if parts[1:] and parts[0].endswith("_blocks") else parts[:1])


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
