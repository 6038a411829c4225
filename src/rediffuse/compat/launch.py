"""How the process that runs an old program was started: what the old package read from the environment by itself."""

from collections.abc import Mapping
from dataclasses import dataclass

from rediffuse.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Launch:
    """A process among others, and where its log goes."""

    rank: int = 0
    num_processes: int = 1
    local_rank: int = 0
    """Among the processes of one machine: its GPU."""
    log_dir: str | None = None
    """Where `logger.configure` puts the log (and programs their results) unless it is told another folder."""
    log_formats: tuple[str, ...] = ("stdout", "log", "csv")
    """Of the first process; see `logger.make_output_format`."""
    log_formats_of_others: tuple[str, ...] = ("log",)

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.num_processes:
            raise ConfigError(f"RANK={self.rank}: 0 to {self.num_processes - 1} go with WORLD_SIZE")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Launch":
        """Read torchrun's RANK, WORLD_SIZE and LOCAL_RANK, and the old logger's OPENAI_LOGDIR and OPENAI_LOG_FORMAT.

        Raises:
            ConfigError: one of the first three is no whole number, or the rank is not below the number of processes.
        """
        default = cls()
        rank = _number(environment, "RANK", default.rank)
        return cls(
            rank=rank,
            num_processes=_number(environment, "WORLD_SIZE", default.num_processes),
            local_rank=_number(environment, "LOCAL_RANK", default.local_rank),
            log_dir=environment.get("OPENAI_LOGDIR"),
            log_formats=_names(environment, "OPENAI_LOG_FORMAT", default.log_formats),
            log_formats_of_others=_names(environment, "OPENAI_LOG_FORMAT_MPI", default.log_formats_of_others),
        )


_launch = Launch()


def current() -> Launch:
    """What `set_current` was given; one process without a folder for logs before that."""
    return _launch


def set_current(launch: Launch) -> None:
    """Say how this process was started, before the program begins."""
    global _launch
    _launch = launch


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    value = environment.get(name, str(default))
    if not value.isdecimal():
        raise ConfigError(f"environment variable {name}={value}: a whole number is needed")
    return int(value)


def _names(environment: Mapping[str, str], name: str, default: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(filter(None, environment[name].split(","))) if name in environment else default
