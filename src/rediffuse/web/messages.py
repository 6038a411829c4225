"""The messages between the server and its worker, the process that owns the networks."""

from dataclasses import dataclass
from pathlib import Path

from rediffuse.detection.verdict import Verdict


@dataclass(frozen=True, kw_only=True)
class Task:
    """One file to judge."""

    key: int
    """Its number in the server."""
    path: Path
    name: str
    """The name that the client gave, made safe for messages and tables."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """Files of any clients that are judged together: they share the batches of the network."""

    detector: str
    tasks: tuple[Task, ...]


@dataclass(frozen=True, kw_only=True)
class DetectorInfo:
    """A detector and its model, as clients see them."""

    name: str
    model: str
    sha256: str
    model_sha256: str
    image_size: int
    num_windows: int | None
    """Windows of an image that the network gets; None where it gets the image as a whole."""
    round_size: int
    """Most files in a round: enough for two batches."""


@dataclass(frozen=True, kw_only=True)
class Ready:
    """The networks are loaded."""

    device: str
    detectors: tuple[DetectorInfo, ...]


@dataclass(frozen=True, kw_only=True)
class Unusable:
    """The networks cannot be loaded; the worker ends."""

    error: Exception


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The result of a task."""

    key: int
    verdict: Verdict
    """Without its evidence."""
    article: str
    """The HTML of the image with its pictures; see `report.page.self_contained`."""


@dataclass(frozen=True, kw_only=True)
class Logged:
    """A log record of the worker."""

    level: int
    text: str
