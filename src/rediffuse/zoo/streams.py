"""Batches of a small network on a CPU are computed two at a time, each on half of the cores.

In a call of a small network the cores often wait: for Python between two operations, for parts of an operation that one
core computes, and for each other at the end of every operation. Two batches at a time use the cores meanwhile.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TypeVar

import torch

from rediffuse.models.config import UNetConfig
from rediffuse.threads import in_threads, use_cores
from rediffuse.zoo.model import DiffusionModel

S = TypeVar("S")
R = TypeVar("R")

STREAMS = 2
LARGEST = 2 * 10**10
"""Most weights times pixels of a small network. A larger one hardly waits, and a killed job would lose more work."""


def num_streams(model: DiffusionModel) -> int:
    """The number of batches at a time: `STREAMS` for a small network on a CPU of several cores, otherwise 1."""
    config = model.network.config
    if model.device.type != "cpu" or torch.get_num_threads() < STREAMS or not isinstance(config, UNetConfig):
        return 1
    num_weights = sum(weight.numel() for weight in model.network.parameters())
    return STREAMS if num_weights * config.image_size**config.dims <= LARGEST else 1


def in_streams(
    function: Callable[[S], R], batches: Iterable[S], streams: int, stop: Callable[[], None]
) -> Generator[R, None, None]:
    """`map(function, batches)`, with so many batches at a time; the results come in order.

    While the caller uses a result, the next batches are computed, and operations of torch in its thread use one core.
    The last of an odd number of batches gets all cores.

    Args:
        function: computes one batch.
        batches: the batches.
        streams: from `num_streams`.
        stop: called when no more results are needed, so that `function` ends early in other threads.
    """
    if streams == 1:
        yield from map(function, batches)
        return
    cores = torch.get_num_threads()

    def compute(numbered: tuple[int, S, bool]) -> R:
        number, batch, is_last = numbered
        with use_cores(cores if is_last and number % streams == 0 else cores // streams):
            return function(batch)

    for result in in_threads(compute, _numbered(batches), streams, ahead=streams, stop=stop):
        with use_cores(1):
            yield result


def _numbered(batches: Iterable[S]) -> Iterator[tuple[int, S, bool]]:
    """Each batch with its number, from 0, and whether it is the last one."""
    rest = iter(batches)
    batch, number = next(rest, None), 0
    while batch is not None:
        following = next(rest, None)
        yield number, batch, following is None
        batch, number = following, number + 1
