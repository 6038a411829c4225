"""Extract a model from the checkpoint of a run: its weights, or one of their averages, and its configuration."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rediffuse import records
from rediffuse.diffusion.config import ProcessConfig
from rediffuse.errors import CheckpointError, ConfigError
from rediffuse.files import sha256_of
from rediffuse.models.checkpoints import read_pickle
from rediffuse.models.config import EncoderConfig, Kind, UNetConfig
from rediffuse.models.layout import Layout
from rediffuse.zoo.folder import Found, Provenance

KINDS: Mapping[str, Kind] = {"diffusion": "unet", "superres": "superres", "classifier": "encoder"}
"""The kind of network that each task trains, by the task's name."""
_PREFIX = "module."
"""Prefix that torch's AveragedModel adds to every tensor name."""


def read_run_state(path: Path) -> dict[str, Any] | None:
    """The state in `path` if it is the checkpoint of a training run, None for any other file."""
    if path.suffix != ".pt" or not path.is_file():
        return None
    try:
        state = read_pickle(path)
    except CheckpointError:
        return None  # reading it as weights reports the error
    is_run_state = isinstance(state, dict) and {"step", "model", "averages", "config"} <= state.keys()
    return state if is_run_state else None


def extract(state: Mapping[str, Any], path: Path, ema_rate: float | None = None) -> Found:
    """The model in the checkpoint of a run.

    Args:
        state: from `read_run_state`.
        path: the checkpoint, for errors.
        ema_rate: rate of the average to use; None for the one that the run exports (its first average, or the weights
            themselves if it has none), and 0 for the weights themselves.

    Raises:
        CheckpointError: the run trains another kind of network.
        ConfigError: the run has no average of that rate; names the rates that it has.
    """
    config = state["config"]
    if config["task"] not in KINDS:
        raise CheckpointError(f"{path}: the checkpoint of a {config['task']} training; {', '.join(KINDS)} are allowed")
    kind = KINDS[config["task"]]
    rates = config["loop"]["ema_rates"]
    if ema_rate is None:
        ema_rate = rates[0] if rates else 0
    if ema_rate and ema_rate not in rates:
        kept = ", ".join(map(str, [*rates, 0]))
        raise ConfigError(f"{path}: ema={ema_rate}: the run has {kept} (0: the weights themselves)")
    weights = _average(state["averages"][rates.index(ema_rate)]) if ema_rate else state["model"]
    network = records.parse(
        EncoderConfig if kind == "encoder" else UNetConfig, config["network"], f"{path}: config: network"
    )
    return Found(
        layout=Layout(source=str(path), kind=kind, fields=vars(network), unknown=()),
        process=records.parse(ProcessConfig, config["process"], f"{path}: config: process"),
        training={**config, "steps": state["step"], "ema_rates": [ema_rate] if ema_rate else []},
        state=weights,
        provenance=Provenance(source=str(path), sha256=sha256_of(path)),
    )


def _average(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(_PREFIX): tensor for name, tensor in state.items() if name.startswith(_PREFIX)}
