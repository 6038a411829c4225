"""The folder of a training run: its settings, versions, log, checkpoints and model."""

import json
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rediffuse.errors import ConfigError, InputError, StorageError
from rediffuse.files import CLAIM, write_bytes
from rediffuse.records import read_json
from rediffuse.training.config import FREE_FIELDS

_PACKAGES = ("rediffuse", "torch", "numpy", "accelerate", "pillow")


class RunFolder:
    """Names the files of a run and writes its records and log.

    config.json       all settings that affect the result; a resumed run must have the same
    init.json         source of initial weights, which tensors were taken and which not (with --init only)
    images.arrow      the list of the images, so that a resumed run need not make it again
    starts.jsonl      every start: its step, the command, the files that cannot be read, git revision, versions
    metrics.jsonl     the log: one line per `log_every` steps and per evaluation
    checkpoints/      full states
    samples/          sample grids of the evaluations
    model/            the finished model
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.samples = path / "samples"
        self.index = path / "images.arrow"
        self.model = path / "model"
        self._config = path / "config.json"
        self._init = path / "init.json"
        self._starts = path / "starts.jsonl"
        self._metrics = path / "metrics.jsonl"

    def check(self, config: Mapping[str, Any]) -> None:
        """Check that the folder is new, or holds a run with the same config.

        Raises:
            InputError: the folder holds other files.
            ConfigError: its config.json cannot be read, or the config differs; names every field that does, with both
                values.
        """
        if not self.path.exists():
            return
        if not self._config.exists():
            if any(path.name != CLAIM for path in self.path.iterdir()):
                raise InputError(f"{self.path}: is not empty and not a run folder (no config.json); give a new folder")
            return
        before = read_json(self._config)
        differing = [
            f"{name} was {old!r}, given {new!r}"
            for name, (old, new) in _differences(before, config).items()
            if name.rpartition(".")[2] not in FREE_FIELDS
        ]
        if differing:
            raise ConfigError(f"{self.path}: holds a run with other settings: {'; '.join(differing)}")

    def begin(self, config: Mapping[str, Any], start: Mapping[str, Any]) -> None:
        """Record the config and this start, and remove the log lines of steps that will be computed again."""
        write_bytes(self._config, (json.dumps(config, indent=2) + "\n").encode())
        versions = {"python": platform.python_version(), **{package: version(package) for package in _PACKAGES}}
        self._append(self._starts, {**start, "git": _git_revision(), "versions": versions})
        if self._metrics.exists():
            lines = self._metrics.read_text(errors="replace").splitlines()
            lines = [line for line in lines if _step_of(line) <= start["step"]]
            write_bytes(self._metrics, "".join(f"{line}\n" for line in lines).encode())

    @property
    def init(self) -> dict[str, str] | None:
        """Source and SHA-256 of the model that gave the initial weights; None for a run with random initial weights."""
        if not self._init.exists():
            return None
        record = read_json(self._init)
        return {name: str(record.get(name)) for name in ("source", "sha256")}

    def check_init(self, source: str | None) -> None:
        """Check that `source` gave the run's initial weights. None is always accepted: a resumed run needs no `--init`.

        Raises:
            ConfigError: the run started from another model; names both.
        """
        begun_with = self.init["source"] if self.init else None
        if source not in (None, begun_with):
            raise ConfigError(
                f"{self.path}: the run began with init {begun_with}, given {source}; "
                "leave --init out to continue this run, or give a new folder"
            )

    def note_init(self, record: Mapping[str, Any] | None) -> None:
        """Record which tensors a new run took from another model; None removes the record of an earlier attempt."""
        if record is None:
            self._init.unlink(missing_ok=True)
        else:
            write_bytes(self._init, (json.dumps(record, indent=2) + "\n").encode())

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Append a line to the log."""
        self._append(self._metrics, {"step": step, **values})

    def _append(self, path: Path, record: Mapping[str, Any]) -> None:
        try:
            with path.open("a") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise StorageError(f"{path}: could not be written: {error.strerror or error}") from error


def _step_of(line: str) -> float:
    """The step of a line of the log; infinity for a damaged line, such as the last one of a killed process."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, TypeError, LookupError, RecursionError, OverflowError):
        return float("inf")


def _differences(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """The values in which two nested mappings differ, by dotted name."""
    found: dict[str, tuple[Any, Any]] = {}
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name), after.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found |= _differences(old, new, f"{prefix}{name}.")
        elif old != new:
            found[prefix + name] = (old, new)
    return found


def _git_revision() -> str | None:
    """The git commit of the source code, with `+` if files were changed since; None outside a repository."""
    source = Path(__file__).parent
    try:
        git = ["git", "-C", str(source)]
        revision = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "."], capture_output=True).returncode
    except (OSError, subprocess.CalledProcessError):
        return None
    return revision + ("+" if changed else "")
