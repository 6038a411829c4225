"""A model out of the full state of a run: the weights, or one of their averages, with the run's configuration."""

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
"""The network that each task trains, by the task's name."""
_PREFIX = "module."
"""What torch's AveragedModel puts before every name."""


def read_run_state(path: Path) -> dict[str, Any] | None:
    """The state in `path` where it is a training run's, None where it is any other file."""
    if path.suffix != ".pt" or not path.is_file():
        return None
    try:
        state = read_pickle(path)
    except CheckpointError:
        return None  # whoever reads it as weights will say what is wrong
    is_run_state = isinstance(state, dict) and {"step", "model", "averages", "config"} <= state.keys()
    return state if is_run_state else None


def extract(state: Mapping[str, Any], path: Path, ema_rate: float | None = None) -> Found:
    """The model that a run had come to.

    Args:
        state: from `read_run_state`.
        path: where it was read.
        ema_rate: which average; None takes the one that the run exports (its first, or the weights themselves where
            it keeps none), and 0 the weights themselves, which an average of rate 0 would be.

    Raises:
        CheckpointError: the run trains something else than a network of images.
        ConfigError: the run keeps no average of that rate; names those it keeps.
    """
    config = state["config"]
    if config["task"] not in KINDS:
        raise CheckpointError(f"{path}: the training of a {config['task']}; {', '.join(KINDS)} are allowed")
    kind = KINDS[config["task"]]
    rates = config["loop"]["ema_rates"]
    if ema_rate is None:
        ema_rate = rates[0] if rates else 0
    if ema_rate and ema_rate not in rates:
        kept = ", ".join(map(str, [*rates, 0]))
        raise ConfigError(f"{path}: ema={ema_rate}: the run keeps {kept} (0: the weights themselves)")
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
