"""Initial weights out of another model, wherever they fit: fine-tuning, also to other classes or another size."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from rediffuse.errors import CheckpointError
from rediffuse.training.extract import extract, read_run_state
from rediffuse.zoo.find import find
from rediffuse.zoo.folder import Found


@dataclass(frozen=True, kw_only=True)
class Initial:
    """Tensors to begin with."""

    source: str
    """What was asked for."""
    sha256: str
    """Of the file of weights, in hex."""
    state: Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Left:
    """A tensor that only one side has, or both in different shapes (`320x4`; None where it is missing)."""

    name: str
    network: str | None
    source: str | None


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Which tensors of a model a network takes, and which not. As a string: a table to read."""

    source: str
    sha256: str
    taken: dict[str, str]
    """Shapes by name."""
    left: tuple[Left, ...]

    def __str__(self) -> str:
        blocks = Counter(map(_block, self.taken))
        taken = [(f"{block}.*", f"{count} tensors") for block, count in blocks.items()]
        left = [(row.name, f"{row.network or 'none'} here, {row.source or 'none'} there") for row in self.left]
        width = max(len(name) for name, _ in taken + left)
        lines = [f"taken      {name:<{width}}  {what}" for name, what in taken]
        lines += [f"not taken  {name:<{width}}  {what}" for name, what in left]
        of_network = len(self.taken) + sum(row.network is not None for row in self.left)
        return "\n".join([f"initial weights: {len(self.taken)} of {of_network} tensors from {self.source}", *lines])


def find_initial(source: str) -> Found:
    """A model to begin with.

    Args:
        source: whatever `zoo.model.load` takes, or a checkpoint of a training run (of which the average that the run
            exports is taken).

    Raises:
        InputError, CheckpointError, FetchError: there is no such model, or it cannot be read.
    """
    path = Path(source)
    state = read_run_state(path)
    return find(source) if state is None else extract(state, path)


def read_initial(source: str) -> Initial:
    """The weights of a model; `source` and errors are those of `find_initial`."""
    found = find_initial(source)
    return Initial(source=source, sha256=found.provenance.sha256, state=found.state)


def compare_with(network: Mapping[str, Tensor], initial: Initial) -> Transfer:
    """What a network with this state_dict takes of `initial`: every tensor of equal name and shape.

    Raises:
        CheckpointError: nothing fits.
    """
    taken = {
        name: _shape(tensor)
        for name, tensor in network.items()
        if name in initial.state and initial.state[name].shape == tensor.shape
    }
    if not taken:
        raise CheckpointError(f"{initial.source}: none of its {len(initial.state)} tensors fits the network to train")
    shapes = [{name: _shape(tensor) for name, tensor in state.items()} for state in (network, initial.state)]
    left = (name for name in dict.fromkeys([*network, *initial.state]) if name not in taken)
    return Transfer(
        source=initial.source,
        sha256=initial.sha256,
        taken=taken,
        left=tuple(Left(name=name, network=shapes[0].get(name), source=shapes[1].get(name)) for name in left),
    )


@torch.no_grad()
def copy_fitting(network: nn.Module, initial: Initial) -> Transfer:
    """Copy what fits into the network, in its precision and on its device; returns what `compare_with` says."""
    state = network.state_dict()
    transfer = compare_with(state, initial)
    for name in transfer.taken:
        state[name].copy_(initial.state[name])  # a state_dict shares the network's memory
    return transfer


def _block(name: str) -> str:
    """`input_blocks.3` of `input_blocks.3.0.in_layers.2.weight`, `label_emb` of `label_emb.weight`."""
    parts = name.split(".")[:-1]
    return ".".join(parts[:2] if parts[1:] and parts[0].endswith("_blocks") else parts[:1])


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
