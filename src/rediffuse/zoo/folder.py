"""The folder that a model is kept in, and what is known of weights once they are found.

A folder holds `model.safetensors`, a model card `README.md`, and `config.json`:
`{"kind": "unet", "network": {...}, "process": {...}, "training": {...}}`, the last of these free.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rediffuse import records
from rediffuse.diffusion.config import ProcessConfig
from rediffuse.errors import ConfigError, InputError
from rediffuse.files import sha256_of, write_bytes
from rediffuse.models.checkpoints import read_state_dict, write_state_dict
from rediffuse.models.config import EncoderConfig, Kind, UNetConfig
from rediffuse.models.layout import Layout
from rediffuse.zoo.card import CARD_FILE, is_generated, model_card

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where weights come from."""

    source: str
    """What was asked for: a name, a path, or a hub's `owner/name@revision`."""
    sha256: str
    """Of the file of weights, in hex."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """Tensors, and what describes them."""

    layout: Layout
    """The network, as far as it is known; `process` is among its unknowns where the process is."""
    process: ProcessConfig | None
    training: Mapping[str, Any]
    """How it was trained; free, JSON values."""
    state: Mapping[str, Tensor]
    provenance: Provenance


def read_folder(folder: Path, source: str) -> Found:
    """What the folder holds; `source` is what it is called in errors and in the provenance.

    The run folder of a training holds the model that the training has written into it.

    Raises:
        InputError: it is no model's folder, the training has written no model yet, or a file is missing.
        ConfigError: the configuration is none; names the field.
        CheckpointError: the weights are damaged. That they fit the network is not looked at here.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise InputError(f"{folder}: not a model's folder: there is no {CONFIG_FILE}")
    try:
        fields = json.loads(path.read_bytes())
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise ConfigError(f"{path}: a JSON object is needed")
    if "task" in fields:
        return _read_run(folder, source)
    description = records.parse(ModelRecord, fields, str(path))
    kind = EncoderConfig if description.kind == "encoder" else UNetConfig
    network = records.parse(kind, description.network, f"{path}: network")
    weights = folder / WEIGHTS_FILE
    return Found(
        layout=Layout(source=source, kind=description.kind, fields=vars(network), unknown=()),
        process=records.parse(ProcessConfig, description.process, f"{path}: process"),
        training=description.training,
        state=read_state_dict(weights),
        provenance=Provenance(source=source, sha256=sha256_of(weights)),
    )


def write_folder(folder: Path, found: Found, dtype: torch.dtype | None = None, name: str | None = None) -> None:
    """Write a folder that `read_folder` reads.

    The configuration is written last: a folder that has one is complete. A model card that somebody wrote stays.

    Args:
        folder: made if it is missing; a model in it is replaced.
        found: everything about it is known.
        dtype: precision on disk; None keeps each tensor's.
        name: of the repository on the hub, if the folder is for one.

    Raises:
        ConfigError: something is not known; names it.
        StorageError: the disk is full, or the folder cannot be written to.
    """
    network = found.layout.config()
    assert found.process is not None  # otherwise it is unknown, and the line above raises
    config = {
        "kind": found.layout.kind,
        "network": records.dump(network),
        "process": records.dump(found.process),
        "training": dict(found.training),
    }
    (folder / CONFIG_FILE).unlink(missing_ok=True)
    state = {name: tensor.to(dtype=dtype) for name, tensor in found.state.items()}
    write_state_dict(folder / WEIGHTS_FILE, state)
    card = folder / CARD_FILE
    if not card.exists() or is_generated(card):
        num_parameters = sum(tensor.numel() for tensor in state.values())
        text = model_card(
            found.layout.kind, network, found.process, found.training, num_parameters=num_parameters, name=name
        )
        write_bytes(card, text.encode())
    write_bytes(folder / CONFIG_FILE, (json.dumps(config, indent=2) + "\n").encode())


def _read_run(run: Path, source: str) -> Found:
    model = run / "model"
    if not (model / CONFIG_FILE).is_file():
        raise InputError(
            f"{run}: this training has written no model yet; "
            f"`rediffuse convert` makes one of a checkpoint in {run / 'checkpoints'}"
        )
    return read_folder(model, source)


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """`config.json` as it is written."""

    kind: Kind
    network: dict[str, Any]
    process: dict[str, Any]
    training: dict[str, Any] = field(default_factory=dict)
