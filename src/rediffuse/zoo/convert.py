"""Weights from one form to another, tensor for tensor: our folder, or a `.pt` for guided-diffusion's programs."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from rediffuse.errors import CheckpointError, ConfigError, InputError
from rediffuse.files import atomic_write
from rediffuse.models.encoder import EncoderUNetModel
from rediffuse.models.frequency import GATES
from rediffuse.zoo.folder import Found, write_folder
from rediffuse.zoo.inspect import misfit
from rediffuse.zoo.model import DiffusionModel, skeleton


def convert(found: Found, destination: Path, *, dtype: torch.dtype | None = None, force: bool = False) -> None:
    """Write weights that were found.

    Args:
        found: from `find.find`, or a training's state.
        destination: a name that ends in `.pt` gets the plain state_dict, under guided-diffusion's names, whatever else
            is unknown; any other becomes a folder that `model.load` reads, for which everything has to be known.
        dtype: precision on disk; None keeps each tensor's, to the bit.
        force: replace what is there.

    Raises:
        InputError: something is there already, or it is the source itself.
        CheckpointError: the tensors do not fit the configuration; names which.
        ConfigError: something about the model is not known, or its process does not fit its network, or a `.pt` was to
            hold spectral gates.
        StorageError: it could not be written.
    """
    source = Path(found.provenance.source)
    if source.exists() and destination.exists() and source.samefile(destination):
        raise InputError(f"{destination}: is what would be converted; give another name")
    if destination.exists() and not force:
        raise InputError(f"{destination}: is there already; --force replaces it")
    difference = misfit(found)
    if difference:
        raise CheckpointError(f"{source}: does not fit its configuration: {difference}")
    if destination.suffix == ".pt":
        if any(name.startswith(GATES) for name in found.state):
            raise ConfigError(f"{destination}: a .pt for guided-diffusion cannot hold spectral gates; a folder can")
        _write_state_dict(destination, found.state, dtype)
        return
    network = skeleton(found.layout.kind, found.layout.config())
    if not isinstance(network, EncoderUNetModel):
        assert found.process is not None  # otherwise it is unknown, and the line above raises
        DiffusionModel(network=network, process_config=found.process, provenance=found.provenance)  # they fit, or raise
    write_folder(destination, found, dtype)


def _write_state_dict(path: Path, state: Mapping[str, Tensor], dtype: torch.dtype | None) -> None:
    with atomic_write(path) as partial:
        # A view would be saved with all of the storage that it is part of: clones have their own.
        torch.save({name: tensor.to(dtype=dtype).clone() for name, tensor in state.items()}, partial)
