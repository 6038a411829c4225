"""The share of a job that falls to this process, as torchrun says in the environment."""

import os
from collections.abc import Sequence
from typing import TypeVar

from rediffuse.errors import ConfigError

T = TypeVar("T")


def share(items: Sequence[T]) -> Sequence[T]:
    """Every WORLD_SIZE-th item from RANK on; all of them where there is one process."""
    rank, num_processes = _variable("RANK", 0), _num_processes()
    if rank >= num_processes:
        raise ConfigError(f"environment variable RANK={rank}: 0 to {num_processes - 1} go with WORLD_SIZE")
    return items[rank::num_processes]


def refuse_force(force: bool) -> None:
    """Raise ConfigError for `--force` in one of several processes: it would remove what another one has just made."""
    if force and _num_processes() > 1:
        raise ConfigError(f"--force: is for one process, WORLD_SIZE={_num_processes()}; remove the folder beforehand")


def own_device(device: str) -> str:
    """`cuda:LOCAL_RANK` for `auto` where processes share a machine with GPUs; the device as it was given elsewhere."""
    if device == "auto" and "LOCAL_RANK" in os.environ:
        import torch

        if torch.cuda.is_available():
            return f"cuda:{_variable('LOCAL_RANK', 0)}"
    return device


def _num_processes() -> int:
    return max(1, _variable("WORLD_SIZE", 1))


def _variable(name: str, default: int) -> int:
    value = os.environ.get(name, str(default))
    if not value.isdecimal():
        raise ConfigError(f"environment variable {name}={value}: a whole number is needed")
    return int(value)
