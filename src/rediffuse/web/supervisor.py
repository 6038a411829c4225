"""The server's side of its worker: starts it, gives it rounds of files, and starts it again when it ends."""

import asyncio
import contextlib
import logging
import multiprocessing
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection
from threading import Thread
from typing import Any

from rediffuse.web.config import WorkerOptions
from rediffuse.web.jobs import Jobs, task_of
from rediffuse.web.messages import Judged, Logged, Ready, Round, Unusable
from rediffuse.web.metrics import Metrics

LOGGER = logging.getLogger(__name__)

MOST_ROUNDS = 2
"""Rounds at the worker: the one that is computed, and the next one, so that the network does not wait."""
LONGEST_PAUSE = 60.0
"""Seconds until a worker that ended without a result is started again; at first 1."""


class Supervisor:
    """Owns the worker process."""

    def __init__(self, options: WorkerOptions, clock: Callable[[], float], metrics: Metrics) -> None:
        """Start the worker.

        Args:
            options: for the worker.
            clock: seconds since any time.
            metrics: counts the starts.
        """
        self._options, self._clock, self._metrics = options, clock, metrics
        self._start()

    def wait(self) -> Ready:
        """Wait until the first worker is ready. Call it before `run`.

        Raises:
            RediffuseError: the networks cannot be loaded.
            StorageError: the worker ended.
        """
        try:
            while True:
                message = self._connection.recv()
                if isinstance(message, Ready):
                    self.is_ready = True
                    return message
                self._take_other(message)
        except EOFError:
            raise RuntimeError("the worker ended while it loaded the networks") from None

    async def run(self, jobs: Jobs) -> None:
        """Give files to the worker, and keep its results, until it is cancelled."""
        pause = 1.0
        while True:
            num_results = await self._feed(jobs)
            pause = 1.0 if num_results else min(LONGEST_PAUSE, 2 * pause)
            LOGGER.error("the worker ended (exit status %s); it is started again", self._process.exitcode)
            await asyncio.sleep(pause)
            self._start()

    def stop(self) -> None:
        """End the worker. What it computes is lost."""
        self._process.kill()
        self._process.join()
        self._connection.close()

    def _start(self) -> None:
        self.is_ready = False
        context = multiprocessing.get_context("spawn")  # a fork would not survive the threads of the server
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_run, args=(other, self._options), daemon=True)
        self._process.start()
        other.close()
        self._metrics.starts.inc()

    async def _feed(self, jobs: Jobs) -> int:
        """Work with the present worker until it ends; the number of its results."""
        rounds: deque[list[int]] = deque()
        num_results, since = 0, self._clock()
        inbox: asyncio.Queue[Any] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        Thread(target=_read, args=(self._connection, loop, inbox), daemon=True).start()
        while True:
            if self.is_ready:
                if not rounds:
                    since = self._clock()
                self._send_rounds(jobs, rounds)
            message = await self._next(inbox, jobs, self._options.patience if rounds else None)
            if message is None:
                break
            if isinstance(message, Judged):
                for keys in rounds:
                    if message.key in keys:
                        keys.remove(message.key)
                while rounds and not rounds[0]:
                    rounds.popleft()
                now = self._clock()
                jobs.judged(message.key, message.verdict, message.article, now - since)
                num_results, since = num_results + 1, now
            else:
                self._take_other(message, quietly=True)
        self.is_ready = False
        self._process.join()
        jobs.give_back(rounds)
        return num_results

    def _send_rounds(self, jobs: Jobs, rounds: deque[list[int]]) -> None:
        while len(rounds) < MOST_ROUNDS:
            items = jobs.next_round()
            if not items:
                return
            rounds.append([item.key for item in items])
            with contextlib.suppress(OSError):  # the worker has ended, which the inbox will say
                self._connection.send(Round(detector=items[0].job.detector, tasks=tuple(map(task_of, items))))

    async def _next(self, inbox: "asyncio.Queue[Any]", jobs: Jobs, patience: float | None) -> Any:
        """The next message; () if there are only new files; None if the worker has ended."""
        jobs.more.clear()
        waits = [asyncio.ensure_future(inbox.get()), asyncio.ensure_future(jobs.more.wait())]
        try:
            done, _ = await asyncio.wait(waits, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()
        if not done:
            LOGGER.error("the worker gave no result for %g s and is ended", patience)
            self._process.kill()
            return ()
        return waits[0].result() if waits[0] in done else ()

    def _take_other(self, message: Any, *, quietly: bool = False) -> None:
        match message:
            case Ready():
                self.is_ready = True
            case Logged():
                LOGGER.log(message.level, "%s", message.text)
            case Unusable():
                if not quietly:
                    raise message.error
                LOGGER.error("%s", message.error)


def _run(connection: Connection, options: WorkerOptions) -> None:
    from rediffuse.web.worker import main  # imports torch, which the server does not need

    main(connection, options)


def _read(connection: Connection, loop: asyncio.AbstractEventLoop, inbox: "asyncio.Queue[Any]") -> None:
    """Move the messages of a worker into the event loop; None is the last one."""
    while True:
        try:
            message = connection.recv()
        except (EOFError, OSError):
            message = None
        with contextlib.suppress(RuntimeError):  # the event loop was closed
            loop.call_soon_threadsafe(inbox.put_nowait, message)
        if message is None:
            return
