"""Work on batches that may not fit in the memory of a device."""

import logging
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from rediffuse.errors import ConfigError

T = TypeVar("T")
LOGGER = logging.getLogger(__name__)


class Parts:
    """Computes on the rows of batches, a limited number at a time.

    Where a part does not fit in the memory of the device, this number is halved, also for all later parts.

    Args:
        size: rows at a time, at least 1.
        device: for the messages.

    Raises:
        ConfigError: `size` is below 1; later, if a single row does not fit.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        if size < 1:
            raise ConfigError(f"batch_size={size}: at least 1 is needed")
        self.size, self.device = size, device

    def __call__(self, compute: Callable[[slice], T], num_rows: int) -> Iterator[tuple[slice, T]]:
        """Yield parts of the rows 0 to `num_rows`, in order, with the result of `compute` for each."""
        first = 0
        while first < num_rows:
            rows = slice(first, min(first + self.size, num_rows))
            result = self._result(compute, rows)
            if result is not None:
                yield rows, result
                first = rows.stop

    def _result(self, compute: Callable[[slice], T], rows: slice) -> T | None:
        """None where the rows did not fit: the error, which keeps tensors alive, is gone when they are tried again."""
        try:
            return compute(rows)
        except torch.OutOfMemoryError:
            count = rows.stop - rows.start
            if count == 1:
                raise ConfigError(f"batch_size=1: one image does not fit in the memory of {self.device}") from None
            self.size = count // 2
            LOGGER.warning("%d images do not fit in the memory of %s: continues with %d", count, self.device, self.size)
        return None
