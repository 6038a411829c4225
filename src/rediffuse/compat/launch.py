"""How the process of an old program was started: the settings that the old package read from the environment itself."""

from collections.abc import Mapping
from dataclasses import dataclass

from rediffuse.errors import ConfigError

MPI_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
"""The variables in which Open MPI, MPICH (also Intel's) and MVAPICH2 tell a process how many they have started."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """The rank of this process among others, and its log folder."""

    rank: int = 0
    num_processes: int = 1
    local_rank: int = 0
    """Rank among the processes of this machine; it is the number of the process's GPU."""
    log_dir: str | None = None
    """The default folder of `logger.configure`, for the log and the results of programs."""
    log_formats: tuple[str, ...] = ("stdout", "log", "csv")
    """Log formats of the first process; see `logger.make_output_format`."""
    log_formats_of_others: tuple[str, ...] = ("log",)

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.num_processes:
            raise ConfigError(f"RANK={self.rank}: WORLD_SIZE allows 0 to {self.num_processes - 1}")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Launch":
        """Read torchrun's RANK, WORLD_SIZE and LOCAL_RANK, and the old logger's OPENAI_LOGDIR and OPENAI_LOG_FORMAT.

        Raises:
            ConfigError: one of the first three is not an integer, or the rank is not below the number of processes; or
                an MPI launcher such as mpiexec has started several processes, each of which would be alone.
        """
        default = cls()
        if not environment.get("WORLD_SIZE"):
            _refuse_mpi(environment)
        rank = _number(environment, "RANK", default.rank)
        return cls(
            rank=rank,
            num_processes=_number(environment, "WORLD_SIZE", default.num_processes),
            local_rank=_number(environment, "LOCAL_RANK", default.local_rank),
            log_dir=environment.get("OPENAI_LOGDIR") or None,
            log_formats=_names(environment, "OPENAI_LOG_FORMAT", default.log_formats),
            log_formats_of_others=_names(environment, "OPENAI_LOG_FORMAT_MPI", default.log_formats_of_others),
        )


_launch = Launch()


def current() -> Launch:
    """The argument of the last `set_current`; by default one process without a log folder."""
    return _launch


def set_current(launch: Launch) -> None:
    """Set how this process was started; call it before the program begins."""
    global _launch
    _launch = launch


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    value = environment.get(name) or str(default)
    if not value.isdecimal():
        raise ConfigError(f"environment variable {name}={value}: a whole number is needed")
    return int(value)


def _refuse_mpi(environment: Mapping[str, str]) -> None:
    for name in MPI_SIZES:
        if environment.get(name, "1") not in ("", "1"):
            raise ConfigError(
                f"{name}={environment[name]}: processes of mpiexec would each run the whole program and write the same "
                f"files; run torchrun --nproc-per-node {environment[name]} -m rediffuse.compat SCRIPT.py ARGS..."
            )


def _names(environment: Mapping[str, str], name: str, default: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(filter(None, environment[name].split(","))) if name in environment else default
