"""A network for inference alone: weights are converted and packed once, and embeddings are computed once."""

import copy
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from rediffuse.models.layers import GroupNorm, ResBlock
from rediffuse.models.trunk import Trunk

T = TypeVar("T", bound=Trunk)
R = TypeVar("R")


class PackedConv2d(nn.Module):
    """A convolution on the CPU with its weights in the layout of the kernel; has no gradients.

    `nn.Conv2d` brings the weights into this layout in every call. For 1,024 channels at 8 px and one image this takes
    longer than the convolution. Here it is done when the size of the input or the number of cores is not that of the
    call before: the layout depends on both.
    """

    def __init__(self, conv: nn.Conv2d, dtype: torch.dtype) -> None:
        super().__init__()
        assert conv.bias is not None
        self.bias = nn.Parameter(conv.bias.detach().to(dtype), requires_grad=False)
        self._weight = conv.weight.detach()
        self._packed: dict[int, tuple[torch.Size, Tensor]] = {}  # by the number of cores: two threads may differ in it
        self._shape = (conv.padding, conv.stride, conv.dilation, conv.groups)

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)  # the output has the layout of the input
        cores = torch.get_num_threads()
        size, packed = self._packed.get(cores, (None, self._weight))
        if size != x.shape:
            weight = self._weight.to(self.bias.dtype)
            packed = torch.ops.mkldnn._reorder_convolution_weight(weight, *self._shape, list(x.shape))
            self._packed[cores] = x.shape, packed
        return torch.ops.mkldnn._convolution_pointwise(x, packed, self.bias, *self._shape, "none", [], "")


class Remembered(nn.Module):
    """A layer that computes its output for a tensor once, and keeps it as long as the tensor exists."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self._once = _remembered(layer)

    def forward(self, x: Tensor) -> Tensor:
        return self._once(x)


def _remembered(function: Callable[[Tensor], R]) -> Callable[[Tensor], R]:
    outputs = WeakTensorKeyDictionary()

    def once(x: Tensor) -> R:
        output = outputs.get(x)
        if output is None:
            output = outputs[x] = function(x)
        return output

    return once


def for_inference(network: T, dtype: torch.dtype, *, packs: bool = True) -> T:
    """A copy of a network for many calls without gradients, with the convolutions of the torso in `dtype`.

    The copy shares all weights that are not converted or packed with the network. It must not be used after a change of
    the network's weights.

    Args:
        network: a network in eval mode.
        dtype: see `Trunk.to_torso_dtype`.
        packs: on a CPU, pack the weights of convolutions and remember embeddings. A compiler does both itself.
    """
    copied: dict[int, Any] = {id(weight): weight for weight in network.parameters()}  # as deepcopy keeps its copies
    on_cpu = packs and next(network.parameters()).device.type == "cpu"
    torso = set(network.torso())
    for module in network.modules():
        to = dtype if module in torso else network.head_dtype
        if isinstance(module, nn.Conv2d) and on_cpu and _has_kernel(to):
            copied[id(module)] = PackedConv2d(module, to)
        elif module in torso:
            copied |= {id(one): nn.Parameter(one.detach().to(to), False) for one in module.parameters()}
        elif isinstance(module, ResBlock) and on_cpu:
            copied[id(module.emb_layers)] = Remembered(module.emb_layers)
    copy_ = copy.deepcopy(network, copied)
    copy_.remembers_embeddings = on_cpu
    for module in copy_.modules() if on_cpu else ():
        if isinstance(module, GroupNorm):
            module.changed = _remembered(module.changed)
    return copy_


def _has_kernel(dtype: torch.dtype) -> bool:
    """Whether this processor convolves in this precision by oneDNN, whose layout of weights is meant."""
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled):  # type: ignore[attr-defined]
        return False
    ops = torch.ops.mkldnn
    tests = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}
    return dtype == torch.float32 or (dtype in tests and getattr(ops, tests[dtype])())
