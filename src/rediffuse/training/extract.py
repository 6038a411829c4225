"""Extract a model from the checkpoint of a run: its weights, or one of their averages, and its configuration."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from rediffuse import records
from rediffuse.diffusion.config import ProcessConfig
from rediffuse.errors import CheckpointError, ConfigError, shown
from rediffuse.files import sha256_of
from rediffuse.models.checkpoints import as_state_dict, read_pickle
from rediffuse.models.config import EncoderConfig, Kind, UNetConfig
from rediffuse.models.layout import Layout
from rediffuse.zoo.folder import Found, Provenance

KINDS: Mapping[str, Kind] = {"diffusion": "unet", "superres": "superres", "classifier": "encoder"}
"""The kind of network that each task trains, by the task's name."""
T = TypeVar("T")

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
        CheckpointError: the run trains another kind of network, or its record is damaged.
        ConfigError: the run has no average of that rate; names the rates that it has.
    """
    config = _field(state, "config", dict, path)
    task = _field(config, "task", str, path)
    if task not in KINDS:
        raise CheckpointError(f"{path}: the checkpoint of a {task} training; {', '.join(KINDS)} are allowed")
    kind = KINDS[task]
    rates = _field(_field(config, "loop", dict, path), "ema_rates", list, path)
    averages = _field(state, "averages", list, path)
    if len(averages) != len(rates):
        raise CheckpointError(f"{path}: has {len(averages)} averages, but {len(rates)} ema_rates")
    if ema_rate is None:
        ema_rate = rates[0] if rates else 0
    if ema_rate and ema_rate not in rates:
        kept = ", ".join(map(str, [*rates, 0]))
        raise ConfigError(f"{path}: ema={ema_rate}: the run has {kept} (0: the weights themselves)")
    weights = _average(averages[rates.index(ema_rate)]) if ema_rate else state["model"]
    network = records.parse(
        EncoderConfig if kind == "encoder" else UNetConfig,
        _field(config, "network", dict, path),
        f"{path}: config: network",
    )
    return Found(
        layout=Layout(source=str(path), kind=kind, fields=vars(network), unknown=()),
        process=records.parse(ProcessConfig, _field(config, "process", dict, path), f"{path}: config: process"),
        training={**config, "steps": _field(state, "step", int, path), "ema_rates": [ema_rate] if ema_rate else []},
        state=as_state_dict(weights, path),
        provenance=Provenance(source=str(path), sha256=sha256_of(path)),
    )


def _average(state: Any) -> Any:
    if not isinstance(state, dict):
        return state  # reading it as weights reports the error
    return {str(name).removeprefix(_PREFIX): value for name, value in state.items() if str(name).startswith(_PREFIX)}


def _field(record: Mapping[str, Any], name: str, kind: type[T], path: Path) -> T:
    value = record.get(name)
    if not isinstance(value, kind):
        raise CheckpointError(f"{path}: {name} is {shown(value)}; {kind.__name__} is needed")
    return value
