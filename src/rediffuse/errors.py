"""The errors that a user can correct, as one tree of exceptions.

    RediffuseError
    ├── ConfigError       a setting or a flag has a value that is not allowed
    ├── InputError        a path is missing, a folder is empty, a labels file does not fit
    ├── ImageError        one file cannot be used as an image
    ├── CheckpointError   weights do not fit the network, or the file holds no weights
    ├── SettingsMismatch  a detector was given a reconstruction made with other settings
    ├── StorageError      a result could not be written (disk full, no permission)
    └── FetchError        a download failed, or the file has another checksum than expected

Every message is one line: what was given, and what is allowed. Line breaks in names and values are escaped. A bug in
rediffuse raises an AssertionError, not these.
"""

import difflib
import reprlib
from collections.abc import Iterable
from typing import Any

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


class RediffuseError(Exception):
    """The base class of all errors that a user can correct."""

    def __str__(self) -> str:
        """The message in one line, whatever characters the names and values in it have."""
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in super().__str__())


class ConfigError(RediffuseError, ValueError):
    """A setting or a flag has a value that is not allowed."""


class InputError(RediffuseError):
    """A path is missing, a folder is empty, or a labels file does not fit."""


class ImageError(RediffuseError):
    """One file cannot be used as an image; the message names the file."""


class CheckpointError(RediffuseError):
    """Weights do not fit the network, or the file holds no weights."""


class SettingsMismatch(RediffuseError):
    """A detector was given a reconstruction that was made with other settings."""


class StorageError(RediffuseError):
    """A result could not be written."""


class FetchError(RediffuseError):
    """A download failed, or the file has another checksum than expected."""


def shown(value: Any) -> str:
    """The `repr` of a value for a message, shortened where it is long."""
    return _SHORT.repr(value)


def nearest(given: str, allowed: Iterable[str]) -> str:
    """A hint `; did you mean X?` for a misspelt name; empty if no name is similar."""
    match = difflib.get_close_matches(given, list(allowed), n=1)
    return f"; did you mean {match[0]}?" if match else ""
