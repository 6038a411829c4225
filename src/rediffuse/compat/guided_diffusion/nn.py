"""guided-diffusion's layers and small functions with their old names."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.nn import SiLU
from torch.utils import checkpoint as recomputation

from rediffuse.diffusion import likelihood
from rediffuse.errors import ConfigError
from rediffuse.models.layers import NUM_GROUPS, timestep_embedding
from rediffuse.models.layers import zeroed as zero_module

__all__ = [
    "GroupNorm32",
    "SiLU",
    "avg_pool_nd",
    "checkpoint",
    "conv_nd",
    "linear",
    "mean_flat",
    "normalization",
    "scale_module",
    "timestep_embedding",
    "update_ema",
    "zero_module",
]

Module = TypeVar("Module", bound=nn.Module)


class GroupNorm32(nn.GroupNorm):
    """Group normalisation in float32 for inputs of any precision. Arguments are torch's."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.float()).to(input.dtype)


def conv_nd(dims: int, *args: Any, **kwargs: Any) -> nn.Module:
    """A convolution in 1, 2 or 3 dimensions with torch's arguments. Raises ConfigError for other dimensions."""
    return _for_dimensions(dims, nn.Conv1d, nn.Conv2d, nn.Conv3d)(*args, **kwargs)


def avg_pool_nd(dims: int, *args: Any, **kwargs: Any) -> nn.Module:
    """An average pooling in 1, 2 or 3 dimensions with torch's arguments. Raises ConfigError for other dimensions."""
    return _for_dimensions(dims, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)(*args, **kwargs)


def linear(*args: Any, **kwargs: Any) -> nn.Linear:
    """A linear layer with torch's arguments."""
    return nn.Linear(*args, **kwargs)


def normalization(channels: int) -> GroupNorm32:
    """Normalisation over 32 groups of `channels`."""
    return GroupNorm32(NUM_GROUPS, channels)


def update_ema(target_params: Iterable[Tensor], source_params: Iterable[Tensor], rate: float = 0.99) -> None:
    """Update exponential moving averages in place: target * rate + source * (1 - rate)."""
    for target, source in zip(target_params, source_params, strict=True):
        target.detach().mul_(rate).add_(source.detach(), alpha=1 - rate)


def mean_flat(tensor: Tensor) -> Tensor:
    """(N, ...) to (N,): the mean over all dimensions but the first."""
    return likelihood.mean_flat(tensor)


def scale_module(module: Module, scale: float) -> Module:
    """Multiply the parameters of the module by `scale`; returns the module."""
    for parameter in module.parameters():
        parameter.detach().mul_(scale)
    return module


def checkpoint(
    func: Callable[..., Tensor], inputs: Sequence[Tensor], params: Iterable[nn.Parameter], flag: bool
) -> Tensor:
    """func(*inputs), recomputed in the backward pass if `flag` is set; `params` is not needed and ignored."""
    if not flag:
        return func(*inputs)
    return recomputation.checkpoint(func, *inputs, use_reentrant=False)


def _for_dimensions(dims: int, *kinds: type[nn.Module]) -> type[nn.Module]:
    if dims not in (1, 2, 3):
        raise ConfigError(f"dims={dims}: 1, 2 or 3 are allowed")
    return kinds[dims - 1]
