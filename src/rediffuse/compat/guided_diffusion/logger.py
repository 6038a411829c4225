"""guided-diffusion's logger (that of OpenAI's baselines) with its old names.

Two things differ from the original. It never writes to a folder in the system's temporary one: `configure` uses `dir`,
or the folder that `rediffuse.compat.launch` got from OPENAI_LOGDIR (`python -m rediffuse.compat` reads it, or chooses a
new folder in ./logs). And a program that continues in a folder appends to the files there instead of emptying them.
"""

import contextlib
import csv
import json
import sys
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from io import StringIO
from pathlib import Path
from time import perf_counter
from typing import Any, ParamSpec, Protocol, TextIO, TypeVar

from rediffuse.compat.launch import current
from rediffuse.compat.processes import WORLD
from rediffuse.errors import ConfigError, nearest
from rediffuse.files import write_bytes

P = ParamSpec("P")
R = TypeVar("R")
Values = dict[str, Any]

DEBUG, INFO, WARN, ERROR, DISABLED = 10, 20, 30, 40, 50

_LONGEST = 30
"""Maximal number of characters of a name or value in a table."""


class _Comm(Protocol):
    @property
    def rank(self) -> int: ...

    def gather(self, sendobj: Any) -> list[Any] | None: ...


# --- output formats -------------------------------------------------------------------------------------------------


class KVWriter(ABC):
    """An output for the values of a step."""

    @abstractmethod
    def writekvs(self, kvs: Values) -> None: ...

    def close(self) -> None:
        """Close the output; most formats need not do anything."""
        return


class SeqWriter(ABC):
    """An output for messages."""

    @abstractmethod
    def writeseq(self, seq: Iterable[str]) -> None: ...


class HumanOutputFormat(KVWriter, SeqWriter):
    """Messages, and values as a table, appended to a file given by name or as an open file."""

    def __init__(self, filename_or_file: str | TextIO) -> None:
        self.own_file = isinstance(filename_or_file, str)
        self.file = open(filename_or_file, "a") if isinstance(filename_or_file, str) else filename_or_file  # noqa: SIM115, PTH123

    def writekvs(self, kvs: Values) -> None:
        if not kvs:
            return
        rows = [(_short(name), _short(_text(kvs[name]))) for name in sorted(kvs, key=str.lower)]
        left, right = (max(map(len, column)) for column in zip(*rows, strict=True))
        rule = "-" * (left + right + 7)
        lines = [rule, *(f"| {name:<{left}} | {value:<{right}} |" for name, value in rows), rule]
        print(*lines, sep="\n", file=self.file, flush=True)

    def writeseq(self, seq: Iterable[str]) -> None:
        print(*seq, file=self.file, flush=True)

    def close(self) -> None:
        if self.own_file:
            self.file.close()


class JSONOutputFormat(KVWriter):
    """One JSON object per step, appended to a file."""

    def __init__(self, filename: str) -> None:
        self.file = open(filename, "a")  # noqa: SIM115, PTH123 (closed by `close`)

    def writekvs(self, kvs: Values) -> None:
        record = {name: float(value) if hasattr(value, "dtype") else value for name, value in kvs.items()}
        print(json.dumps(record), file=self.file, flush=True)

    def close(self) -> None:
        self.file.close()


class CSVOutputFormat(KVWriter):
    """One row per step, appended to a file; a new name becomes a new column."""

    def __init__(self, filename: str) -> None:
        self.path = Path(filename)
        self.keys: list[str] = list(self._rows()[0]) if self._rows() else []

    def writekvs(self, kvs: Values) -> None:
        new = sorted(kvs.keys() - set(self.keys))
        self.keys += new
        text = StringIO()
        writer = csv.DictWriter(text, self.keys, restval="", lineterminator="\n")
        if new:
            writer.writeheader()
            writer.writerows([*self._rows(), kvs])
            write_bytes(self.path, text.getvalue().encode())
        else:
            writer.writerow(kvs)
            with self.path.open("a") as file:
                file.write(text.getvalue())

    def _rows(self) -> list[dict[str, str]]:
        return list(csv.DictReader(StringIO(self.path.read_text()))) if self.path.exists() else []


class TensorBoardOutputFormat(KVWriter):
    """Event files for TensorBoard in a folder. Raises ConfigError if tensorboard is not installed."""

    def __init__(self, dir: str) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ConfigError("OPENAI_LOG_FORMAT=tensorboard: install rediffuse[tensorboard]") from None
        self.writer = SummaryWriter(dir)
        self.step = 1

    def writekvs(self, kvs: Values) -> None:
        for name, value in kvs.items():
            self.writer.add_scalar(name, float(value), self.step)
        self.writer.flush()
        self.step += 1

    def close(self) -> None:
        self.writer.close()


def make_output_format(format: str, ev_dir: str, log_suffix: str = "") -> KVWriter:
    """`stdout`, or `log`, `json`, `csv` or `tensorboard` in the folder. Raises ConfigError for another name."""
    folder = Path(ev_dir)
    folder.mkdir(parents=True, exist_ok=True)
    formats: dict[str, Callable[[], KVWriter]] = {
        "stdout": lambda: HumanOutputFormat(sys.stdout),
        "log": lambda: HumanOutputFormat(str(folder / f"log{log_suffix}.txt")),
        "json": lambda: JSONOutputFormat(str(folder / f"progress{log_suffix}.json")),
        "csv": lambda: CSVOutputFormat(str(folder / f"progress{log_suffix}.csv")),
        "tensorboard": lambda: TensorBoardOutputFormat(str(folder / f"tb{log_suffix}")),
    }
    if format not in formats:
        raise ConfigError(f"log format {format!r}: {', '.join(formats)} are allowed{nearest(format, formats)}")
    return formats[format]()


# --- the current logger ---------------------------------------------------------------------------------------------


class Logger:
    """Collects the values of a step, and writes them and messages to its outputs."""

    DEFAULT: "Logger"
    """The default logger, which writes to the terminal only."""
    CURRENT: "Logger"
    """The logger that the functions of this module use."""

    def __init__(self, dir: str | None, output_formats: Iterable[KVWriter], comm: _Comm | None = None) -> None:
        self.name2val: defaultdict[str, Any] = defaultdict(float)
        self.name2cnt: defaultdict[str, int] = defaultdict(int)
        self.level = INFO
        self.dir = dir
        self.output_formats = list(output_formats)
        self.comm = comm

    def logkv(self, key: str, val: Any) -> None:
        self.name2val[key] = val

    def logkv_mean(self, key: str, val: Any) -> None:
        self.name2cnt[key] += 1
        self.name2val[key] += (val - self.name2val[key]) / self.name2cnt[key]

    def dumpkvs(self) -> Values:
        values = dict(self.name2val) if self.comm is None else self._mean_of_processes(self.comm)
        for output in self.output_formats:
            output.writekvs(values)
        self.name2val.clear()
        self.name2cnt.clear()
        return values

    def log(self, *args: Any, level: int = INFO) -> None:
        if self.level > level:
            return
        for output in self.output_formats:
            if isinstance(output, SeqWriter):
                output.writeseq(map(str, args))

    def set_level(self, level: int) -> None:
        self.level = level

    def set_comm(self, comm: _Comm | None) -> None:
        self.comm = comm

    def get_dir(self) -> str | None:
        return self.dir

    def close(self) -> None:
        for output in self.output_formats:
            output.close()

    def _mean_of_processes(self, comm: _Comm) -> Values:
        """The means over all processes, weighted by their numbers of values; empty in all but the first process."""
        counted = {name: (float(value), self.name2cnt.get(name, 1)) for name, value in self.name2val.items()}
        sums: defaultdict[str, float] = defaultdict(float)
        counts: defaultdict[str, int] = defaultdict(int)
        for of_process in comm.gather(counted) or []:
            for name, (value, count) in of_process.items():
                sums[name] += value * count
                counts[name] += count
        return {name: sums[name] / counts[name] for name in sums}


Logger.DEFAULT = Logger.CURRENT = Logger(None, [HumanOutputFormat(sys.stdout)])


def get_current() -> Logger:
    """The current logger."""
    return Logger.CURRENT


def configure(
    dir: str | None = None, format_strs: Iterable[str] | None = None, comm: _Comm | None = None, log_suffix: str = ""
) -> None:
    """Start logging to a folder.

    Args:
        dir: the folder, created if missing; by default the one from OPENAI_LOGDIR.
        format_strs: see `make_output_format`; by default the formats in OPENAI_LOG_FORMAT (first process) and
            OPENAI_LOG_FORMAT_MPI (others), or else stdout, log and csv in the first process and log in the others.
        comm: values are averaged over its processes (`mpi4py.MPI.COMM_WORLD`).
        log_suffix: a suffix of the names of the files.

    Raises:
        ConfigError: no folder is given, or a format is unknown.
    """
    launch, rank = current(), WORLD.rank
    given = dir or launch.log_dir
    if given is None:
        raise ConfigError(
            "logger.configure: no folder; give dir, or run the program with `python -m rediffuse.compat`, "
            "which takes it from OPENAI_LOGDIR"
        )
    folder = str(Path(WORLD.bcast(given)).expanduser())
    if rank > 0:
        log_suffix += f"-rank{rank:03d}"
    if format_strs is None:
        format_strs = launch.log_formats if rank == 0 else launch.log_formats_of_others
    formats = [make_output_format(name, folder, log_suffix) for name in format_strs if name]
    Logger.CURRENT = Logger(folder, formats, comm)
    log(f"Logging to {folder}")


def reset() -> None:
    """Close the current logger; afterwards only the terminal is written to."""
    if Logger.CURRENT is not Logger.DEFAULT:
        Logger.CURRENT.close()
        Logger.CURRENT = Logger.DEFAULT


@contextlib.contextmanager
def scoped_configure(
    dir: str | None = None, format_strs: Iterable[str] | None = None, comm: _Comm | None = None
) -> Iterator[None]:
    """`configure` for the duration of a block."""
    before = Logger.CURRENT
    configure(dir, format_strs, comm)
    try:
        yield
    finally:
        Logger.CURRENT.close()
        Logger.CURRENT = before


def logkv(key: str, val: Any) -> None:
    """Record a value of this step; a second value under the same key replaces the first."""
    get_current().logkv(key, val)


def logkv_mean(key: str, val: Any) -> None:
    """Record a value of this step; several values under the same key are averaged."""
    get_current().logkv_mean(key, val)


def logkvs(d: Mapping[str, Any]) -> None:
    """Record several values of this step."""
    for name, value in d.items():
        logkv(name, value)


def dumpkvs() -> Values:
    """Write, delete and return the values of this step."""
    return get_current().dumpkvs()


def getkvs() -> Values:
    """The values of this step so far."""
    return get_current().name2val


def log(*args: Any, level: int = INFO) -> None:
    """Write a message, unless its level is below that of the logger."""
    get_current().log(*args, level=level)


def debug(*args: Any) -> None:
    """A message that is not shown by default."""
    log(*args, level=DEBUG)


def info(*args: Any) -> None:
    """A message of the default level."""
    log(*args, level=INFO)


def warn(*args: Any) -> None:
    """A warning."""
    log(*args, level=WARN)


def error(*args: Any) -> None:
    """An error message."""
    log(*args, level=ERROR)


def set_level(level: int) -> None:
    """Show messages of this level and above; DISABLED shows none."""
    get_current().set_level(level)


def set_comm(comm: _Comm | None) -> None:
    """Set the processes over which values are averaged."""
    get_current().set_comm(comm)


def get_dir() -> str | None:
    """The folder of the log; None if none was configured."""
    return get_current().get_dir()


record_tabular = logkv
dump_tabular = dumpkvs


@contextlib.contextmanager
def profile_kv(scopename: str) -> Iterator[None]:
    """Add the seconds that a block takes to the value `wait_SCOPENAME`."""
    begun = perf_counter()
    try:
        yield
    finally:
        getkvs()[f"wait_{scopename}"] += perf_counter() - begun


def profile(n: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator that measures every call of a function with `profile_kv`."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def timed(*args: P.args, **kwargs: P.kwargs) -> R:
            with profile_kv(n):
                return function(*args, **kwargs)

        return timed

    return decorate


def _text(value: Any) -> str:
    return f"{float(value):<8.3g}" if hasattr(value, "__float__") else str(value)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
