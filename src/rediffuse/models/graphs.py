"""CUDA graphs: calls of a network that have one shape are recorded once and replayed, without the cost of launches.

The recording itself (`cuda_graph`) has not been run on a GPU yet; everything around it is tested on a CPU.
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

LOGGER = logging.getLogger(__name__)

Recorder = Callable[[Callable[[], Tensor], torch.device], tuple[Tensor, Callable[[], object]]]
"""Records a computation: returns the tensor of its result, and a function that computes the result again into it."""


def cuda_graph(compute: Callable[[], Tensor], device: torch.device) -> tuple[Tensor, Callable[[], object]]:
    """A `Recorder` for a GPU: the graph of the kernels that `compute` launches (`torch.cuda.graph`)."""
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(device)
    # Threads that read files may pin memory meanwhile, which the default mode forbids.
    with torch.cuda.device(device), torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        output = compute()
    return output, graph.replay


class Replayed:
    """A network for inference, whose calls are replayed where they have the shape of the recorded one.

    The second of two calls in a row with equal shapes is recorded, so a short job records nothing. A smaller batch,
    such as the last one, is padded: the other rows keep what they held. Calls of other shapes, or with gradients, run
    the network itself; so do all calls after a recording that failed, which is a warning. Not for several threads.

    Args:
        network: (x_t (N, ...), timesteps (N,), **conditioning (N, ...) each) -> (N, ...), all on one device. It must
            not read a value from the device.
        record: how calls are recorded.
    """

    def __init__(self, network: Callable[..., Tensor], record: Recorder = cuda_graph) -> None:
        self._network, self._record = network, record
        self._before: tuple[int, Any] | None = None
        self._recorded: tuple[int, Any] | None = None
        self._fails = False
        self._inputs: dict[str, Tensor] = {}
        self._output, self._replay = torch.empty(0), lambda: None

    def __call__(self, x_t: Tensor, timesteps: Tensor, **conditioning: Tensor) -> Tensor:
        size, is_one = len(x_t), timesteps.stride(0) == 0
        # A sampler gives one timestep that was expanded: it is one row for the network too.
        inputs = {"x_t": x_t, "timesteps": timesteps[:1] if is_one else timesteps, **conditioning}
        shapes = (is_one, *((name, value.dtype, value.shape[1:]) for name, value in inputs.items()))
        fits = self._recorded is not None and self._recorded[0] >= size and self._recorded[1] == shapes
        if self._fails or torch.is_grad_enabled() or not (fits or self._records(size, shapes, inputs)):
            return self._network(x_t, timesteps, **conditioning)
        for name, value in inputs.items():
            self._inputs[name][: len(value)].copy_(value)
        self._replay()
        return self._output[:size].clone()

    def _records(self, size: int, shapes: Any, inputs: dict[str, Tensor]) -> bool:
        """Whether the call was recorded: the one before it had the same shapes."""
        before, self._before = self._before, (size, shapes)
        if before != self._before:
            return False
        self._recorded, self._output, self._replay = None, torch.empty(0), lambda: None  # frees the memory of another
        with torch.inference_mode(False):  # calls in either mode can write to these
            self._inputs = {name: value.clone() for name, value in inputs.items()}

        def compute() -> Tensor:
            timesteps = self._inputs["timesteps"].expand(size)
            return self._network(**(self._inputs | {"timesteps": timesteps}))

        try:
            self._output, self._replay = self._record(compute, inputs["x_t"].device)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            LOGGER.warning("calls of the network are not recorded as a CUDA graph: %s", error)
            self._fails = True
            return False
        self._recorded = self._before
        return True
