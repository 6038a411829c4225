"""Time functions alternately in one process, with their peak memory; the matrix rate of the machine."""

import contextlib
import ctypes
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from rediffuse.models.config import Precision
from rediffuse.zoo.model import DTYPES

Clock = Literal["wall", "cpu"]
"""`cpu` is the processor time of the process, all threads together: other programs disturb it less."""

LONGEST_PRODUCT = 1.0
"""Seconds that a product may take, by the rate of those before, to be measured for the matrix rate."""

CLOCKS: Mapping[Clock, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True, kw_only=True)
class Timing:
    """The measurements of one function."""

    seconds: tuple[float, ...]
    """One number per round."""
    peak_bytes: int | None
    """The most memory that it needed beside what was there before; None where the system does not tell."""

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def ratio_to(self, other: "Timing") -> float:
        """How many times as fast it is as `other`: the median of the ratios of the rounds."""
        return statistics.median(theirs / own for own, theirs in zip(self.seconds, other.seconds, strict=True))


def alternate(
    functions: Mapping[str, Callable[[], object]], *, rounds: int, clock: Clock, device: torch.device
) -> dict[str, Timing]:
    """Call every function once per round, in turn, so that a change of the machine's load meets all of them alike.

    A first round, which is not counted, warms up, and measures memory.
    """
    peaks = {name: _peak(function, device) for name, function in functions.items()}
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            seconds[name].append(elapsed(function, clock, device))
    return {name: Timing(seconds=tuple(seconds[name]), peak_bytes=peaks[name]) for name in functions}


def elapsed(function: Callable[[], object], clock: Clock, device: torch.device) -> float:
    """The seconds of one call, until the device has finished its work."""
    now = CLOCKS[clock]
    begin = now()
    function()
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return now() - begin


def matrix_rate(precision: Precision, clock: Clock, device: torch.device) -> float:
    """Operations per second of the fastest of some products of two matrices.

    On a CPU torch has two libraries for them, and on some processors its `matmul` has half the rate of a convolution
    of width 1, which is the product of the pixels with the weights. Without instructions for a precision a large
    product would take half a minute, so only small ones are measured then.
    """
    best = 0.0
    for count, product in _products(DTYPES[precision], device):
        if not best or count / best < LONGEST_PRODUCT:
            best = max(best, *(count / elapsed(product, clock, device) for _ in range(15)))
    return best


def _products(dtype: torch.dtype, device: torch.device) -> Iterator[tuple[int, Callable[[], object]]]:
    """Products of matrices with their number of operations, the small ones first."""
    for side in (256, 2048) if device.type == "cpu" else (8192,):
        a = torch.randn(side, side, device=device).to(dtype)
        yield 2 * side**3, lambda a=a: a @ a
    if device.type == "cpu":
        for side in (8, 64):
            pixels = torch.randn(1, 512, side, side).to(dtype, memory_format=torch.channels_last)
            weights = torch.randn(512, 512, 1, 1).to(dtype)
            yield 2 * 512 * pixels.numel(), lambda x=pixels, w=weights: torch.nn.functional.conv2d(x, w)


def _peak(function: Callable[[], object], device: torch.device) -> int | None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        return torch.cuda.max_memory_allocated(device) - before
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)  # glibc keeps freed memory, which would hide what the function needs
    before = _status("VmRSS")
    if before is not None:
        Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM to VmRSS: man 5 proc
    function()
    after = _status("VmHWM")
    return None if before is None or after is None else max(0, after - before)


def _status(name: str) -> int | None:
    """A size of this process in bytes; None on systems without it."""
    path = Path("/proc/self/status")
    if not path.exists():
        return None
    fields = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
    return int(fields[name].split()[0]) * 1024 if name in fields else None
