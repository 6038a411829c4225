"""Read weights from files without running code, compare them with a network, and load them.

Published `.pt` files are pickles. torch's weights-only reader opens them: it builds tensors and runs no code.
"""

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rediffuse.errors import CheckpointError, InputError, StorageError, shown
from rediffuse.files import atomic_write

WRAPPERS = ("state_dict", "model")
"""Keys under which training programs store the weights in a file that also holds other state."""
PARALLEL_PREFIX = "module."
"""Prefix that torch's data-parallel wrappers add to every tensor name."""

_MAX_NAMED = 4
_LONGEST_NAME = 200
"""Names of more characters are shortened in messages."""
_REFUSED_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The named tensors of a checkpoint on the CPU, memory-mapped where the format allows it.

    Args:
        path: a `.safetensors` file, or a file of `torch.save`: a state_dict, or one under `state_dict` or `model`.

    Raises:
        InputError: there is no such file.
        CheckpointError: the file is damaged, holds something else, or needs code to be run; nothing of it was run. Or
            its tensors are larger than the file.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else read_pickle(path)
    return as_state_dict(content, path)


def as_state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """The named tensors in the content of the file `path`; errors are those of `read_state_dict`."""
    state = _unwrap(content, path)
    # A tensor of one stored number can claim any shape, and would take the memory when it is copied.
    claimed, stored = sum(tensor.nbytes for tensor in state.values()), path.stat().st_size
    if claimed > stored:
        raise CheckpointError(f"{path}: its tensors need {claimed:,} bytes, but the file has {stored:,}")
    return state


def read_pickle(path: Path) -> Any:
    """What `torch.save` wrote: tensors and plain values, memory-mapped where the format allows it; no code is run.

    Raises:
        CheckpointError: the file is damaged, or needs code to be run.
    """
    try:
        zipped = zipfile.is_zipfile(path)  # the format since torch 1.6; only that one can be mapped
        if zipped:
            with zipfile.ZipFile(path) as archive:
                if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                    raise CheckpointError(f"{path}: is compressed; only files as torch.save writes them are read")
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        refused = _REFUSED_GLOBAL.search(str(error))
        if refused:
            raise CheckpointError(
                f"{path}: refused, because loading it would run {refused[1]}; save its state_dict alone"
            ) from None
        raise CheckpointError(f"{path}: not a checkpoint, or a damaged one") from None
    except CheckpointError:
        raise
    except Exception:  # on damaged bytes an unpickler can raise any exception
        raise CheckpointError(f"{path}: not a checkpoint, or a damaged one") from None


def write_state_dict(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write the tensors as a safetensors file, atomically. Raises StorageError where it cannot be written."""
    with atomic_write(path) as partial:
        save_tensors(partial, state, path)


def save_tensors(partial: Path, state: Mapping[str, Tensor], path: Path) -> None:
    """Write the tensors to `partial`, the temporary file of `path`. Raises StorageError, which names `path`."""
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, partial)
    except SafetensorError as error:
        raise StorageError(f"{path}: could not be written: {error}") from error


def write_pickle(path: Path, content: Any, *, replace: bool = True) -> None:
    """Write tensors and plain values with `torch.save`; arguments and errors are those of `files.atomic_write`."""
    with atomic_write(path, replace=replace) as partial, partial.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # torch hides it behind an error about the position in the file
                raise error.__context__ from None
            raise


def not_finite(state: Mapping[str, Tensor]) -> str:
    """How many values of the tensors are NaN or infinite, in one line; empty where none is."""
    counts = {name: int((~_comparable(tensor).isfinite()).sum()) for name, tensor in state.items()}
    names = [name for name, count in counts.items() if count]
    if not names:
        return ""
    total = sum(tensor.numel() for tensor in state.values())
    return f"{sum(counts.values()):,} of {total:,} values are NaN or infinite: {_few(names)}"


def require_finite(state: Mapping[str, Tensor], source: str | Path) -> None:
    """Raise CheckpointError if a value of the tensors is NaN or infinite; `source` is where they come from."""
    if fault := not_finite(state):
        raise CheckpointError(f"{source}: {fault}")


def compare(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """How two state_dicts differ in names and shapes, in one line; empty where they agree."""
    differences = {
        "missing": [name for name in expected if name not in given],
        "unexpected": [name for name in given if name not in expected],
        "of another shape": [
            f"{name} ({_shape(given[name])} instead of {_shape(expected[name])})"
            for name in expected
            if name in given and given[name].shape != expected[name].shape
        ],
    }
    return "; ".join(f"{len(names)} {kind}: {_few(names)}" for kind, names in differences.items() if names)


def load_into(network: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Copy the tensors into the network, in its precision and on its device.

    Args:
        network: any module; unchanged when the tensors do not fit.
        state: tensors with the names and shapes of its `state_dict()`.
        source: where they come from, for the error.

    Raises:
        CheckpointError: the tensors do not fit (see `require_fit`), or some of their values are NaN or infinite.
    """
    require_fit(network, state, source)
    require_finite(state, source)
    network.load_state_dict(dict(state))


def require_fit(network: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Check the names and shapes of tensors; the network may be on the meta device.

    Raises:
        CheckpointError: the tensors do not fit; names those missing, unexpected, or of another shape.
    """
    difference = compare(network.state_dict(), state)
    if difference:
        raise CheckpointError(f"{source}: does not fit this {type(network).__name__}: {difference}")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path}: not a safetensors file, or a damaged one ({_first_line(error)})") from None


def _unwrap(content: Any, path: Path) -> dict[str, Tensor]:
    for key in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{path}: holds {type(content).__name__}, not named tensors")
    for name, value in content.items():
        if not isinstance(name, str):
            raise CheckpointError(f"{path}: holds an entry with the name {shown(name)}; names must be text")
        if not isinstance(value, Tensor):
            kind = type(value).__name__
            raise CheckpointError(f"{path}: {shown(name)} is {kind}, not a tensor; save the state_dict alone")
        if value.layout != torch.strided or value.is_quantized or value.is_meta or value.is_complex():
            raise CheckpointError(
                f"{path}: {shown(name)} is sparse, quantized, complex or empty; dense, real tensors are needed"
            )
    if all(name.startswith(PARALLEL_PREFIX) for name in content):
        content = {name.removeprefix(PARALLEL_PREFIX): tensor for name, tensor in content.items()}
    return dict(content)


def _comparable(tensor: Tensor) -> Tensor:
    """The tensor in a format that has `isfinite`, which those of 8 bits have not."""
    return tensor.float() if tensor.is_floating_point() and tensor.itemsize == 1 else tensor


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _few(names: list[str]) -> str:
    rest = len(names) - _MAX_NAMED
    first = [name if len(name) < _LONGEST_NAME else shown(name) for name in names[:_MAX_NAMED]]
    return ", ".join(first) + (f" and {rest} more" if rest > 0 else "")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
