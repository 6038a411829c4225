"""What a user can mend, as one tree of exceptions.

    RediffuseError
    ├── ConfigError       a setting or a flag is outside what is allowed
    ├── InputError        a path is missing, a folder is empty, a labels file does not fit
    ├── ImageError        one file cannot be used as an image
    ├── CheckpointError   weights do not fit the network, or are no weights
    ├── SettingsMismatch  a detector was given evidence made under other settings
    ├── StorageError      a result could not be written (disk full, no permission)
    └── FetchError        a download failed or did not verify

Every message is one line: what was given, and what is allowed. A mistake of our own is an `assert`, never one of these.
"""

import difflib
from collections.abc import Iterable


class RediffuseError(Exception):
    """The root: catching it catches everything that a user can mend."""


class ConfigError(RediffuseError, ValueError):
    """A setting or a flag is outside what is allowed."""


class InputError(RediffuseError):
    """A path is missing, a folder is empty, or a labels file does not fit."""


class ImageError(RediffuseError):
    """One file cannot be used as an image; the message names the file."""


class CheckpointError(RediffuseError):
    """Weights do not fit the network, or the file holds no weights."""


class SettingsMismatch(RediffuseError):
    """A detector was given evidence that was made under other settings."""


class StorageError(RediffuseError):
    """A result could not be written."""


class FetchError(RediffuseError):
    """A download failed, or what came does not verify."""


def nearest(given: str, allowed: Iterable[str]) -> str:
    """A hint `; did you mean X?` for a misspelt name, or nothing."""
    match = difflib.get_close_matches(given, list(allowed), n=1)
    return f"; did you mean {match[0]}?" if match else ""
