"""SIGTERM and Ctrl-C in programs with several processes, and in those with a training loop of their own."""

import atexit
import contextlib
import signal
from functools import cache

import torch
from torch import distributed as dist

from rediffuse.compat.guided_diffusion import dist_util
from rediffuse.training.interrupt import StopRequest, stop_requests


@cache
def requests_from_now_on() -> StopRequest:
    """The stop requests until the program ends: only the program knows where its own training loop ends."""
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(stop_requests())


def requested_anywhere(stop: StopRequest) -> signal.Signals | None:
    """The signal to stop after this step, if any process received one; every process must call it in the same step."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return stop.received
    votes = torch.tensor(float(stop.received is not None), device=dist_util.dev())
    dist.all_reduce(votes)
    return (stop.received or signal.SIGTERM) if votes > 0 else None
