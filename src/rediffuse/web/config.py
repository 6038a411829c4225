"""The limits of the server, as flags. Imports nothing heavy."""

from dataclasses import dataclass, fields, replace
from pathlib import Path

from rediffuse.errors import ConfigError
from rediffuse.images.limits import Limits
from rediffuse.models.config import PrecisionChoice
from rediffuse.records import require_range

MIN_TOKEN = 16
"""Smallest number of characters of a token; a shorter one could be guessed."""


@dataclass(frozen=True, kw_only=True)
class ServerLimits:
    """What clients may send, and what the server keeps."""

    max_file_bytes: int = 64 << 20
    """Largest uploaded file, in bytes."""
    max_request_bytes: int = 256 << 20
    """Largest request, with all its files, in bytes."""
    max_pixels: int = Limits.max_pixels
    """Largest image, in pixels. Each file may take 5 s of CPU time and 512 MiB of memory to be decoded; with a larger
    number, proportionally more."""
    max_files: int = 100
    """Most files of one job."""
    max_seconds: float = 600
    """Seconds that an upload may take, and then the judging of its files; waiting for other jobs does not count."""
    max_waiting: int = 1000
    """Most files of all clients that are uploaded or wait; more are refused with status 429."""
    max_kept: int = 20_000
    """Most files of all jobs, done or not; more are refused with status 429. A result takes about 10 kB of memory."""
    max_disk_bytes: int = 4 << 30
    """Most bytes of uploads and results on the disk; more uploads are refused with status 507."""
    max_clients: int = 500
    """Most requests at the same time, open event streams included; more are refused with status 503."""
    keep: float = 30
    """Minutes after which a finished job is deleted."""
    patience: float = 60
    """Seconds after which an unfinished job is stopped when the last client that watched its progress has gone."""
    grace: float = 60
    """Seconds that begun jobs get after SIGTERM; then the files that are left are returned without a verdict."""

    def __post_init__(self) -> None:
        for field in fields(self):
            require_range(field.name, getattr(self, field.name), 1 if field.type is int else 0)
        self.for_files()

    def for_files(self) -> Limits:
        """The limits of one file."""
        return replace(Limits.for_pixels(self.max_pixels), max_bytes=self.max_file_bytes)


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """What the process that owns the networks needs to know."""

    models: tuple[str, ...]
    detectors: tuple[str, ...]
    batch_size: int
    workers: int
    device: str
    precision: PrecisionChoice
    limits: Limits
    patience: float
    """Seconds without a result after which the server ends the worker."""

    def __post_init__(self) -> None:
        for name in ("models", "detectors"):
            if not getattr(self, name):
                raise ConfigError(f"--{name[:-1]}: at least one name is needed after it")


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where the server listens, and who may use it."""

    host: str
    port: int
    """0 for any free port."""
    token: str | None
    """Every client must send it; None only on this machine."""
    folder: Path | None
    """Where uploads and results are kept while the server runs; None for a temporary folder."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"--port {self.port}: 0 to 65535 is needed")
        if self.token is None and not self.is_local:
            raise ConfigError(
                f"--host {self.host}: others could use the server; give them a secret with --token or REDIFFUSE_TOKEN"
            )
        if self.token is not None and not (
            len(self.token) >= MIN_TOKEN and self.token.isascii() and self.token.isprintable() and " " not in self.token
        ):
            raise ConfigError(f"--token: at least {MIN_TOKEN} ASCII characters without spaces are needed")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in LOCAL


LOCAL = ("127.0.0.1", "localhost", "::1")
"""The names of this machine, for itself."""
