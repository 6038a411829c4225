"""The full state of a run on disk: whole files, the newest of which a resumed run begins with."""

import logging
from pathlib import Path
from typing import Any

import torch

from rediffuse.errors import CheckpointError
from rediffuse.files import atomic_write

LOGGER = logging.getLogger(__name__)

_PATTERN = "step_*.pt"


def write(folder: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Write the state after `step` steps and remove all but the newest `keep` files.

    Raises:
        StorageError: it could not be written; the older ones still stand.
    """
    path = folder / f"step_{step:08d}.pt"
    with atomic_write(path) as partial:
        torch.save(state, partial)
    LOGGER.debug("checkpoint: %s", path)
    for old in sorted(folder.glob(_PATTERN))[:-keep]:
        old.unlink()
    return path


def newest(folder: Path) -> Path | None:
    """The file with the most steps, if there is any."""
    return max(folder.glob(_PATTERN), default=None)


def read(path: Path) -> dict[str, Any]:
    """The state in `path`: tensors and plain values only, no pickled code is run.

    Raises:
        CheckpointError: the file is damaged; names it and what to do.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"{path}: cannot be read ({type(error).__name__}); remove it to resume from the one before"
        ) from None
