"""Turn SIGTERM and Ctrl-C into a request to stop, which the training loop checks between two steps."""

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from time import monotonic
from types import FrameType

LOGGER = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


SAME_REQUEST = 1.0
"""Seconds in which the signal again is the same request: `timeout` and the agent of torchrun each send it to every
process."""


class StopRequest:
    """The signal that requested a stop, if any."""

    received: signal.Signals | None = None
    received_at = 0.0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received, self.received_at = signal.Signals(number), monotonic()
            LOGGER.warning(
                "%s: stops after this step and saves; the same signal again ends the process at once",
                self.received.name,
            )
        elif number == self.received and monotonic() > self.received_at + SAME_REQUEST:
            # Not caught, so a user who cannot wait for the checkpoint can end the process.
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turn SIGTERM and SIGINT into a request while the block runs. Works in the main thread only."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request) for number in STOP_SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_stop_signals(worker: int) -> None:
    """The `worker_init_fn` of a DataLoader whose batches a training loop uses.

    Ctrl-C, `timeout` and torchrun send their signal to all processes of the group. A worker that ended then would end
    the training before it has written its checkpoint.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
