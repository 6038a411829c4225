"""Read and write model folders.

A folder holds `model.safetensors`, a model card `README.md`, and `config.json`:
`{"kind": "unet", "network": {...}, "process": {...}, "training": {...}}`; `training` may hold any fields.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rediffuse import records
from rediffuse.diffusion.config import ProcessConfig
from rediffuse.errors import ConfigError, InputError, shown
from rediffuse.files import CLAIM, atomic_write, claim, sha256_of
from rediffuse.models.checkpoints import read_state_dict, save_tensors
from rediffuse.models.config import EncoderConfig, Kind, UNetConfig
from rediffuse.models.layout import Layout
from rediffuse.zoo.card import CARD_FILE, is_generated, model_card

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
_COMMIT = re.compile(r"@([0-9a-f]{40})(?=,|$)")
"""The end of the name of a model of the hub, after its commit is known."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """The source and checksum of weights."""

    source: str
    """The source as given: a name, a path, or `owner/name@revision` on the hub."""
    sha256: str
    """SHA-256 of the file of weights, in hex; of a pipeline that of `parts`."""
    parts: Mapping[str, str] = field(default_factory=dict)
    """The SHA-256 of each part of a pipeline of diffusers, by name."""

    @property
    def revision(self) -> str | None:
        """The commit of a model of the hub; of several models all commits, separated by commas."""
        return ",".join(_COMMIT.findall(self.source)) or None


@dataclass(frozen=True, kw_only=True)
class Found:
    """The tensors of a model, with its configuration and provenance."""

    layout: Layout
    """The known fields of the network's configuration. If the process is unknown, `layout.unknown` holds `process`."""
    process: ProcessConfig | None
    training: Mapping[str, Any]
    """The record of the training: any JSON values."""
    state: Mapping[str, Tensor]
    provenance: Provenance


def read_folder(folder: Path, source: str) -> Found:
    """Read a model folder; `source` is its name in errors and in the provenance.

    The folder may also be the run folder of a training, which holds the model.

    Raises:
        InputError: it is no model folder, the training has not written a model yet, or a file is missing.
        ConfigError: the configuration is wrong; names the field.
        CheckpointError: the weights are damaged. Their fit to the network is not checked here.
    """
    path = folder / CONFIG_FILE
    fields = records.read_json(path) if path.is_file() else {}
    if "task" in fields:
        return _read_run(folder, source)
    if not _is_of_model(fields):
        raise InputError(
            f"{source}: is no model of rediffuse ({CONFIG_FILE} with kind, network and process), no pipeline of "
            f"diffusers (model_index.json), and no autoencoder of diffusers{_description(fields, path)}"
        )
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


def is_model_folder(folder: Path) -> bool:
    """Whether the configuration in a folder is meant as that of a model; it may still be wrong."""
    try:
        return _is_of_model(records.read_json(folder / CONFIG_FILE))
    except ConfigError:
        return False


def write_folder(
    folder: Path,
    found: Found,
    dtype: torch.dtype | None = None,
    name: str | None = None,
    *,
    replace: bool = True,
) -> None:
    """Write a model folder, which `read_folder` reads.

    The configuration is written last, so a folder with a configuration is complete. A model card that a person wrote is
    not replaced.

    Args:
        folder: the folder, which is created if missing; a model in it is replaced as a whole or not at all.
        found: a model without unknown fields.
        dtype: precision on disk; None keeps that of each tensor.
        name: name of the repository on the hub; None for a folder that is not for the hub.
        replace: whether `folder` may hold files already.

    Raises:
        ConfigError: a field is unknown; names it.
        InputError: `folder` holds files, and `replace` is not given.
        StorageError: another process is writing to the folder, the disk is full, or the folder cannot be written to.
    """
    network = found.layout.config()
    assert found.process is not None  # if it is unknown, the line above raises
    config = {
        "kind": found.layout.kind,
        "network": records.dump(network),
        "process": records.dump(found.process),
        "training": dict(found.training),
    }
    state = {name: tensor.to(dtype=dtype) for name, tensor in found.state.items()}
    num_parameters = sum(tensor.numel() for tensor in state.values())
    text = model_card(
        found.layout.kind, network, found.process, found.training, num_parameters=num_parameters, name=name
    )
    card = folder / CARD_FILE
    with claim(folder):
        if not replace and any(path.name != CLAIM for path in folder.iterdir()):
            raise InputError(f"{folder}: exists already; --force replaces it")
        # All files are written before the first one gets its name, so that a full disk leaves a model that is there.
        with (
            atomic_write(folder / CONFIG_FILE) as config_file,
            atomic_write(card) as card_file,
            atomic_write(folder / WEIGHTS_FILE) as weights_file,
        ):
            config_file.write_text(json.dumps(config, indent=2) + "\n")
            card_file.write_bytes(text.encode() if not card.exists() or is_generated(card) else card.read_bytes())
            save_tensors(weights_file, state, folder / WEIGHTS_FILE)
            (folder / CONFIG_FILE).unlink(missing_ok=True)


def _is_of_model(fields: Mapping[str, Any]) -> bool:
    return not {"kind", "network", "process"}.isdisjoint(fields)


def _description(fields: Mapping[str, Any], path: Path) -> str:
    """What a folder of another program holds, for an error."""
    if not path.is_file():
        return f": it has no {CONFIG_FILE}"
    kind = fields.get("_class_name") or fields.get("model_type")
    return f": its {CONFIG_FILE} is of {shown(kind)}" if kind else f": its {CONFIG_FILE} is of another program"


def _read_run(run: Path, source: str) -> Found:
    model = run / "model"
    if not (model / CONFIG_FILE).is_file():
        raise InputError(
            f"{run}: this training has not written a model yet; "
            f"`rediffuse convert` makes one from a checkpoint in {run / 'checkpoints'}"
        )
    return read_folder(model, source)


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """The fields of `config.json`."""

    kind: Kind
    network: dict[str, Any]
    process: dict[str, Any]
    training: dict[str, Any] = field(default_factory=dict)
