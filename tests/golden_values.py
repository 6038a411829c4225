"""The golden values in `tests/golden`, and the rule for their weights and inputs (see the README there)."""

import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

FOLDER = Path(__file__).parent / "golden"


def rnd(name: str, *shape: int) -> Tensor:
    """The standard normal array for `name`, float32."""
    return torch.from_numpy(_normal(name, shape)).float()


def fill(module: nn.Module) -> nn.Module:
    """Give every floating tensor of the state_dict the value of its name, and set eval mode."""
    state = module.state_dict()
    for name, tensor in state.items():
        if tensor.is_floating_point():
            state[name] = torch.from_numpy(_value(name, tuple(tensor.shape))).to(tensor.dtype)
    module.load_state_dict(state)
    return module.eval()


def load(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The call that computed `<name>.npz`, and the arrays in it."""
    with np.load(FOLDER / f"{name}.npz") as archive:
        arrays = dict(archive)
    meta = json.loads(str(arrays.pop("meta"))) if "meta" in arrays else {}
    return meta, {key: torch.from_numpy(value) if value.dtype.kind in "fiu" else value for key, value in arrays.items()}


def relative_error(given: Tensor | np.ndarray, golden: Tensor | np.ndarray) -> float:
    """max|a - b| / max|b| over the values where the golden one is finite; infinite where ours is not finite."""
    a, b = (np.asarray(v.detach() if isinstance(v, Tensor) else v, np.float64) for v in (given, golden))
    assert a.shape == b.shape, f"shape {a.shape}, golden {b.shape}"
    if not np.isfinite(a).all():
        return math.inf
    known = np.isfinite(b)
    return float(np.abs(a - b)[known].max() / max(np.abs(b[known]).max(), 1e-12))


def _normal(name: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)


def _value(name: str, shape: tuple[int, ...]) -> np.ndarray:
    n = _normal(name, shape)
    if name.endswith("running_var"):
        return 1 + 0.1 * np.abs(n)
    if len(shape) >= 2:
        return n / math.sqrt(math.prod(shape[1:]))
    return 1 + 0.1 * n if name.endswith("weight") else 0.1 * n
