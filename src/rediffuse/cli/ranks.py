"""The share of a job for this process, from the environment variables of torchrun or of Slurm's srun.

The processes do not communicate: each takes its share of the same list, and any of them can be started again alone.
"""

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from rediffuse.errors import ConfigError
from rediffuse.models.config import USUAL_BATCH_SIZE, BatchSize

T = TypeVar("T")

_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
# Not SLURM_NTASKS, which a batch script has too, although it is one process.
_SLURM = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")


@dataclass(frozen=True)
class Ranks:
    """The place of this process among those that share a job."""

    rank: int = 0
    num_processes: int = 1
    local: int | None = None
    """Its place among those on the same machine; None for a single process."""
    size_name: str = ""
    """The variable that gives `num_processes`."""

    @property
    def part(self) -> str:
        """The name of its part of a result that the processes share; empty for a single process."""
        return f"{self.rank}-of-{self.num_processes}" if self.num_processes > 1 else ""

    def share(self, items: Iterable[T]) -> Iterator[T]:
        """The items `rank`, `rank + num_processes`, ...; all of them for a single process."""
        return itertools.islice(items, self.rank, None, self.num_processes)

    def refuse(self, flag: str, instead: str) -> None:
        """Raise ConfigError for a flag that is given to one of several processes; says what to do instead."""
        if self.num_processes > 1:
            raise ConfigError(f"{flag}: is only for one process, {self.size_name}={self.num_processes}; {instead}")

    def own_device(self, device: str) -> str:
        """A GPU of its own for `auto`, if several processes run on a machine with GPUs; otherwise the given device."""
        if device == "auto" and self.local is not None:
            import torch

            if torch.cuda.is_available():
                return f"cuda:{self.local % torch.cuda.device_count()}"  # Slurm may show each process only its own
        return device


def common_batch_size(given: BatchSize, *, is_shared: bool) -> BatchSize:
    """`given`; of a job of several processes the usual size for `auto`, since each would measure another one."""
    return USUAL_BATCH_SIZE if given == "auto" and is_shared else given


def ranks() -> Ranks:
    """Read the environment; torchrun's variables come before Slurm's, since srun may start torchrun.

    Raises:
        ConfigError: a variable is missing or no number, or the variables contradict each other; names them.
    """
    torchrun, slurm = _read(os.environ, *_TORCHRUN), _read(os.environ, *_SLURM)
    if torchrun is None or slurm is None:
        return torchrun or slurm or Ranks()
    # torchrun numbers its processes in another order than srun; other launchers pass on the numbers of srun.
    is_same = torchrun.rank == slurm.rank or "TORCHELASTIC_RUN_ID" in os.environ
    if torchrun.num_processes < slurm.num_processes or (torchrun.num_processes == slurm.num_processes and not is_same):
        given = [f"{name}={os.environ[name]}" for name in (*_TORCHRUN[:2], *_SLURM[:2])]
        raise ConfigError(f"environment variables {', '.join(given)}: contradict each other; unset one pair")
    return torchrun


def _read(environment: Mapping[str, str], rank: str, size: str, local: str) -> Ranks | None:
    """None where neither `rank` nor `size` is set."""
    given = [name for name in (rank, size) if environment.get(name)]
    # A shell in a batch script of Slurm has a number, but is no member of a step.
    if not given or (given == [rank] and rank.startswith("SLURM_")):
        return None
    if len(given) == 1:
        [missing] = {rank, size} - set(given)
        raise ConfigError(f"environment variable {given[0]}={environment[given[0]]}: {missing} is needed too")
    number, num_processes = _number(environment, rank), _number(environment, size)
    if not number < num_processes:
        raise ConfigError(
            f"environment variables {rank}={number}, {size}={num_processes}: {rank} must be less than {size}"
        )
    place = _number(environment, local) if environment.get(local) and num_processes > 1 else None
    return Ranks(number, num_processes, place, size)


def _number(environment: Mapping[str, str], name: str) -> int:
    value = environment[name]
    if not value.isdecimal():
        raise ConfigError(f"environment variable {name}={value}: a whole number is needed")
    return int(value)
