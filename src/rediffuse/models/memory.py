"""Measure the memory of one forward pass without computing it."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rediffuse.models.meta import forward_on_meta


def peak_activation_bytes(model: nn.Module, shape: Sequence[int]) -> int:
    """Peak bytes of activations during a forward pass without gradients, in float32.

    An estimate: attention counts as fused (no L x L matrix is stored), and the work space of the device's kernels is
    not counted. Runs on the meta device and does not change `model`.

    Args:
        shape: of the input, (N, C, ...). Raises ConfigError where it does not fit the model.
    """
    live = _LiveStorage()
    forward_on_meta(model, shape, _FusedAttention(), live)
    return live.peak


class _LiveStorage(TorchDispatchMode):
    """Counts the bytes of the storages that operations allocate, until each is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {storage._cdata for storage in _storages((args, kwargs))}
        for storage in _storages(out):
            if storage._cdata not in given:  # otherwise a view, or changed in place
                self.now += storage.nbytes()
                weakref.finalize(storage, self._remove, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return out

    def _remove(self, num_bytes: int) -> None:
        self.now -= num_bytes


_OPERANDS = ((0, "query"), (2, "value"))
"""Place and name of the arguments of attention on which the shape of its result depends."""


class _FusedAttention(TorchFunctionMode):
    """Replaces attention on the meta device, which would store softmax(q k^T); the kernels of CPUs and GPUs do not."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            query, value = (args[place] if len(args) > place else (kwargs or {})[name] for place, name in _OPERANDS)
            return query.new_empty(*query.shape[:-1], value.shape[-1])
        return func(*args, **(kwargs or {}))


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
