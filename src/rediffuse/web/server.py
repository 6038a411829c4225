"""Run the server until it is told to stop: `rediffuse serve`."""

import asyncio
import contextlib
import logging
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn

from rediffuse.errors import InputError, StorageError
from rediffuse.files import claim
from rediffuse.web.app import application
from rediffuse.web.config import Address, ServerLimits, WorkerOptions
from rediffuse.web.jobs import Jobs
from rediffuse.web.metrics import Metrics
from rediffuse.web.supervisor import Supervisor

LOGGER = logging.getLogger(__name__)

SWEEP_SECONDS = 1.0
COLLECT_SECONDS = 10.0
"""Time in which clients can fetch the results of the last jobs."""
CLOSE_SECONDS = 5
"""Time of the requests that are still open at the end."""


def serve(address: Address, limits: ServerLimits, options: WorkerOptions) -> None:
    """Load the networks, then answer requests until SIGTERM or Ctrl-C. The main thread must call it.

    At the first signal new uploads are refused, begun jobs get `limits.grace` seconds, and files that are left are
    returned without a verdict. At the second one the server ends at once.

    Raises:
        InputError: the address cannot be used.
        StorageError: the folder cannot be written, or another server has it.
        RediffuseError: see `zoo.model.load` and `detection.detector.load_detector`.
    """
    clock, metrics = time.monotonic, Metrics()
    with _folder(address.folder) as folder, _listening(address) as listener:
        supervisor = Supervisor(options, clock, metrics)
        try:
            ready = supervisor.wait()
            detectors = {info.name: info for info in ready.detectors}
            jobs = Jobs(folder=folder, limits=limits, detectors=detectors, clock=clock, metrics=metrics)
            app = application(
                jobs=jobs, supervisor=supervisor, metrics=metrics, address=address, device=ready.device, clock=clock
            )
            _Server(app, jobs, supervisor, listener).run()
        finally:
            supervisor.stop()


class _Server:
    """uvicorn in a thread. Its own handling of signals would close all connections at once."""

    def __init__(self, app: object, jobs: Jobs, supervisor: Supervisor, listener: socket.socket) -> None:
        config = uvicorn.Config(
            app,  # type: ignore[arg-type]
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=CLOSE_SECONDS,
        )
        self._uvicorn = uvicorn.Server(config)
        self._jobs, self._supervisor, self._listener = jobs, supervisor, listener
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._error: BaseException | None = None

    def run(self) -> None:
        thread = threading.Thread(target=self._in_thread)
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            thread.start()
            while thread.is_alive():
                thread.join(1)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self._error is not None:
            raise self._error

    def _stop(self, *_: object) -> None:
        def begin() -> None:
            if self._stopping.is_set():
                self._uvicorn.should_exit = self._uvicorn.force_exit = True
            self._stopping.set()

        with contextlib.suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(begin)

    def _in_thread(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve())
        except BaseException as error:
            self._error = error

    async def _serve(self) -> None:
        name, port = self._listener.getsockname()[:2]
        async with asyncio.TaskGroup() as group:  # an error of one task ends all
            helpers = [
                group.create_task(task) for task in (self._supervisor.run(self._jobs), self._sweep(), self._drain())
            ]
            LOGGER.info("http://%s:%d: listening; Ctrl-C stops the server", f"[{name}]" if ":" in name else name, port)
            await self._uvicorn.serve([self._listener])
            for helper in helpers:
                helper.cancel()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self._jobs.sweep()

    async def _drain(self) -> None:
        """After the first signal, wait until the begun jobs are done, and their clients have seen it."""
        await self._stopping.wait()
        self._jobs.is_stopping = True
        if begun := self._jobs.unfinished():
            LOGGER.info("stopping: begun jobs have %g s; another signal stops at once", self._jobs.limits.grace)
        await self._until(self._jobs.limits.grace, lambda: not self._jobs.unfinished())
        self._jobs.end_all()
        await self._until(COLLECT_SECONDS, lambda: all(job.is_collected or job.is_deleted for job in begun))
        self._uvicorn.should_exit = True

    @staticmethod
    async def _until(seconds: float, condition: Callable[[], bool]) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not condition():
                    await asyncio.sleep(0.05)


@contextlib.contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    """An empty folder for the jobs, which is removed at the end."""
    if given is None:
        with tempfile.TemporaryDirectory(prefix="rediffuse-", ignore_cleanup_errors=True) as temporary:
            yield Path(temporary)
        return
    with claim(given):
        jobs = given / "jobs"
        shutil.rmtree(jobs, ignore_errors=True)  # of a server that was killed
        try:
            jobs.mkdir()
        except OSError as error:
            raise StorageError(f"--folder {given}: could not be written: {error.strerror}") from error
        try:
            yield jobs
        finally:
            shutil.rmtree(jobs, ignore_errors=True)


@contextlib.contextmanager
def _listening(address: Address) -> Iterator[socket.socket]:
    try:
        family, *_, place = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(place[:2], family=family, backlog=2048)
    except OSError as error:
        where = f"--host {address.host} --port {address.port}"
        raise InputError(f"{where}: cannot be used: {error.strerror or error}") from error
    with listener:
        yield listener
