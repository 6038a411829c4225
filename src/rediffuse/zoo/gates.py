"""Spectral gates in a separate small file, for use with the network on which they were trained."""

import hashlib
from dataclasses import replace
from pathlib import Path

from torch import nn

from rediffuse.errors import CheckpointError, ConfigError
from rediffuse.files import sha256_of
from rediffuse.models.checkpoints import read_state_dict, write_state_dict
from rediffuse.models.frequency import GATES
from rediffuse.models.layout import infer_gates
from rediffuse.zoo.folder import Found, Provenance

GATES_FILE = "frequency.safetensors"
"""The file of gates in the folder of a model that was trained with gates."""


def write_gates(path: Path, network: nn.Module) -> None:
    """Write the tensors `frequency.*` of a network with these names.

    Raises:
        ConfigError: the network has no gates.
        StorageError: the file cannot be written.
    """
    gates = {name: tensor for name, tensor in network.state_dict().items() if name.startswith(GATES)}
    if not gates:
        raise ConfigError(f"{path}: not written: this {type(network).__name__} has no spectral gates (frequency=None)")
    write_state_dict(path, gates)


def with_gates(found: Found, path: Path) -> Found:
    """A model with the gates in a file of `write_gates`, which replace its own gates.

    Its provenance names both files, and its sha256 is a hash of both checksums.

    Raises:
        InputError: there is no such file.
        CheckpointError: the file holds other tensors.
    """
    gates = read_state_dict(path)
    for name in gates:
        if not name.startswith(GATES):
            raise CheckpointError(f"{path}: holds {name}; only spectral gates ({GATES}*) are allowed")
    fields = {**found.layout.fields, **infer_gates({name: tuple(t.shape) for name, t in gates.items()}, str(path))}
    base = {name: tensor for name, tensor in found.state.items() if not name.startswith(GATES)}
    both = f"{found.provenance.sha256}\n{sha256_of(path)}\n"
    return replace(
        found,
        layout=replace(found.layout, fields=fields),
        state=base | gates,
        provenance=Provenance(
            source=f"{found.provenance.source} with {path}", sha256=hashlib.sha256(both.encode()).hexdigest()
        ),
    )
