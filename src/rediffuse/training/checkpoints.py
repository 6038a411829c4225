"""Checkpoints: the full state of a run on disk. A resumed run continues from the newest one."""

import logging
import sys
from pathlib import Path
from typing import Any

import torch

from rediffuse.errors import CheckpointError
from rediffuse.models.checkpoints import write_pickle

LOGGER = logging.getLogger(__name__)

_PATTERN = "step_*.pt"


def write(folder: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Write the state after `step` steps and remove all but the newest `keep` files.

    Raises:
        StorageError: the file could not be written; older checkpoints are kept.
    """
    path = folder / f"step_{step:08d}.pt"
    write_pickle(path, _interned(state))
    LOGGER.debug("checkpoint: %s", path)
    for old in sorted(folder.glob(_PATTERN))[:-keep]:
        old.unlink()
    return path


def _interned(value: Any) -> Any:
    """The value with equal strings as one object, of which a pickle holds one copy.

    Otherwise the bytes would tell whether the names in the state of the optimiser come from an earlier checkpoint.
    """
    if type(value) is str:
        return sys.intern(value)
    if type(value) is list:
        return [_interned(item) for item in value]
    if type(value) is dict:
        return {_interned(key): _interned(item) for key, item in value.items()}
    return value


def newest(folder: Path) -> Path | None:
    """The checkpoint with the most steps; None if there is none."""
    return max(folder.glob(_PATTERN), default=None)


def read(path: Path) -> dict[str, Any]:
    """Read the state in `path`: only tensors and plain values; no pickled code is run.

    Raises:
        CheckpointError: the file is damaged; the message names it and what to do.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"{path}: cannot be read ({type(error).__name__}); remove it to resume from the checkpoint before it"
        ) from None
