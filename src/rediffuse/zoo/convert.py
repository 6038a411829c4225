"""Convert weights to a model folder, to a `.pt` for guided-diffusion's programs, or to a pipeline of diffusers."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from rediffuse.errors import CheckpointError, ConfigError, InputError
from rediffuse.models.checkpoints import require_finite, write_pickle
from rediffuse.models.encoder import EncoderUNetModel
from rediffuse.models.frequency import GATES
from rediffuse.zoo.folder import Found, write_folder
from rediffuse.zoo.inspect import misfit
from rediffuse.zoo.model import DiffusionModel, meta_network
from rediffuse.zoo.pipelines.export import write_pipeline

Form = Literal["diffusers"]
"""A form of a destination that its name does not determine."""


def convert(
    found: Found,
    destination: Path,
    *,
    dtype: torch.dtype | None = None,
    to: Form | None = None,
    force: bool = False,
) -> None:
    """Write weights in another form.

    Args:
        found: from `find.find`, or from a checkpoint of a training.
        destination: a name that ends in `.pt` gets a plain state_dict with guided-diffusion's names, which needs no
            configuration; any other name becomes a model folder for `model.load`, which needs all of it.
        dtype: precision on disk; None does not change the tensors.
        to: `"diffusers"` writes a pipeline of diffusers, whose outputs are equal; None goes by the name.
        force: replace an existing file or folder.

    Raises:
        InputError: the destination exists, or it is the source itself.
        CheckpointError: the tensors do not fit the configuration, and names those that do not; or some of their values
            are NaN or infinite, or become so in `dtype`.
        ConfigError: a part of the configuration is unknown, or the process does not fit the network, or a `.pt` should
            hold spectral gates, or diffusers cannot express the model.
        StorageError: the destination could not be written.
    """
    source = Path(found.provenance.source)
    if source.exists() and destination.exists() and source.samefile(destination):
        raise InputError(f"{destination}: is the source itself; give another name")
    if destination.exists() and not force:
        raise InputError(f"{destination}: exists already; --force replaces it")
    difference = misfit(found)
    if difference:
        raise CheckpointError(f"{source}: does not fit its configuration: {difference}")
    require_finite(found.state, source)
    state = {name: tensor.to(dtype=dtype) for name, tensor in found.state.items()}
    require_finite(state, f"{source} in {dtype}")  # fp16 ends at 65504
    if to == "diffusers":
        write_pipeline(destination, replace(found, state=state))
        return
    if destination.suffix == ".pt":
        if any(name.startswith(GATES) for name in found.state):
            raise ConfigError(f"{destination}: a .pt for guided-diffusion cannot hold spectral gates; a folder can")
        # A view would be saved with its complete storage; a clone has its own storage.
        write_pickle(destination, {name: tensor.clone() for name, tensor in state.items()}, replace=force)
        return
    network = meta_network(found.layout.kind, found.layout.config())
    if not isinstance(network, EncoderUNetModel):
        assert found.process is not None  # if it is unknown, the line above raises
        DiffusionModel(network=network, process_config=found.process, provenance=found.provenance)  # checks the fit
    write_folder(destination, replace(found, state=state), replace=force)
