"""The share of a job for this process, from torchrun's environment variables."""

import os
from collections.abc import Sequence
from typing import TypeVar

from rediffuse.errors import ConfigError

T = TypeVar("T")


def share(items: Sequence[T]) -> Sequence[T]:
    """The items RANK, RANK + WORLD_SIZE, ...; all of them for a single process."""
    rank, num_processes = _variable("RANK", 0), _num_processes()
    if rank >= num_processes:
        raise ConfigError(
            f"environment variable RANK={rank}: with this WORLD_SIZE 0 to {num_processes - 1} are allowed"
        )
    return items[rank::num_processes]


def refuse_force(force: bool) -> None:
    """Raise ConfigError for `--force` in one of several processes: it would remove results of the others."""
    if force and _num_processes() > 1:
        raise ConfigError(f"--force: is only for one process, WORLD_SIZE={_num_processes()}; remove the folder before")


def own_device(device: str) -> str:
    """`cuda:LOCAL_RANK` for `auto` if several processes run on a machine with GPUs; otherwise the given device."""
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
