"""The result of a command, which `main` prints as text or as JSON."""

import contextlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of a command, as text and as a record."""

    text: str | Iterable[str]
    """The text for a person, without a newline at the end; or lines of it."""
    record: Mapping[str, Any]
    """The record for `--json`: plain values, paths, and tuples and mappings of them."""
    status: int = 0
    """The exit status."""
    stopped_by: BaseException | None = None
    """The exception that ended the work early; it is raised after the result so far was printed."""
    kept: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    """What the text needs while it is printed, such as files."""

    def json(self) -> str:
        """The record as one JSON document; numbers that are not finite are null."""
        return json.dumps(_plain(self.record), indent=2, allow_nan=False)


def _plain(value: Any) -> Any:
    match value:
        case Mapping():
            return {str(name): _plain(inner) for name, inner in value.items()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
        case Path():
            return str(value)
        case float() if not math.isfinite(value):
            return None
    return value
