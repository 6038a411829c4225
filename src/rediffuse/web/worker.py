"""The process that owns the networks: it judges rounds of files, and makes their HTML while the network computes.

It is a process of its own, so that a file or a driver that ends it does not end the server.
"""

import contextlib
import logging
import signal
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.connection import Connection
from threading import Lock
from typing import Any

from rediffuse.allocator import keep_freed_memory
from rediffuse.detection.detector import Detector, load_detector
from rediffuse.detection.judge import judge, require_model
from rediffuse.detection.verdict import Verdict
from rediffuse.errors import ConfigError, RediffuseError, SettingsMismatch
from rediffuse.images.find import FoundImage
from rediffuse.report.page import self_contained
from rediffuse.threads import thread_pool
from rediffuse.web.config import WorkerOptions
from rediffuse.web.messages import DetectorInfo, Judged, Logged, Ready, Round, Unusable
from rediffuse.zoo.model import DiffusionModel, load

MOST_IN_ROUND = 64
"""Largest round, so that one of a fast device does not fill the pipe."""
Loaded = Mapping[str, tuple[DiffusionModel, Detector]]


def main(connection: Connection, options: WorkerOptions) -> None:
    """Load the networks, then judge rounds until the server closes the connection or ends."""
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to all processes of a terminal or service; the server decides
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        _Worker(connection, options).run()


class _Worker:
    def __init__(self, connection: Connection, options: WorkerOptions) -> None:
        self._connection, self._options = connection, options
        self._sending = Lock()
        self._replies: deque[Future[None]] = deque()

    def run(self) -> None:
        keep_freed_memory()
        logging.getLogger("rediffuse").addHandler(_Handler(self._send))
        logging.getLogger("rediffuse").setLevel(logging.INFO)
        try:
            loaded = _load(self._options)
        except RediffuseError as error:
            self._send(Unusable(error=error))
            return
        device = str(next(iter(loaded.values()))[0].device)
        infos = tuple(_info(name, *both, self._options.batch_size) for name, both in loaded.items())
        self._send(Ready(device=device, detectors=infos))
        with thread_pool(self._options.workers) as pool:
            while True:
                self._judge(self._connection.recv(), loaded, pool)

    def _judge(self, given: Round, loaded: Loaded, pool: ThreadPoolExecutor) -> None:
        model, detector = loaded[given.detector]
        files = [FoundImage(task.path, task.name, self._options.limits, shown_as=task.name) for task in given.tasks]
        verdicts = judge(
            model,
            files,
            detector,
            batch_size=self._options.batch_size,
            workers=self._options.workers,
            precision=self._options.precision,
            evidence=True,
        )
        for task, verdict in zip(given.tasks, verdicts, strict=True):
            self._replies.append(pool.submit(self._reply, task.key, verdict))
            while self._replies and self._replies[0].done():  # the others go on during the next round
                self._replies.popleft().result()

    def _reply(self, key: int, verdict: Verdict) -> None:
        html = self_contained(verdict)
        self._send(Judged(key=key, verdict=replace(verdict, evidence=None), article=html))

    def _send(self, message: object) -> None:
        with self._sending:
            self._connection.send(message)


def _load(options: WorkerOptions) -> Loaded:
    """Every detector with the model that it was trained with."""
    models = {name: load(name, device=options.device) for name in options.models}
    loaded: dict[str, tuple[DiffusionModel, Detector]] = {}
    for name in options.detectors:
        detector = load_detector(name, device=next(iter(models.values())).device)
        fitting = [model for model in models.values() if _fits(model, detector)]
        if not fitting:
            require_model(next(iter(models.values())), detector)  # which says what differs
        detector.settings_on(fitting[0].device, options.precision)
        loaded[name] = fitting[0], detector
    used = {id(model) for model, _ in loaded.values()}
    if unused := [name for name, model in models.items() if id(model) not in used]:
        raise ConfigError(f"--model {unused[0]}: none of the detectors was trained with it; give one with --detector")
    return loaded


def _fits(model: DiffusionModel, detector: Detector) -> bool:
    try:
        require_model(model, detector)
    except SettingsMismatch:
        return False
    return True


def _info(name: str, model: DiffusionModel, detector: Detector, batch_size: int) -> DetectorInfo:
    windows = detector.settings.num_windows
    return DetectorInfo(
        name=name,
        model=model.provenance.source,
        sha256=detector.sha256 or "",
        model_sha256=model.provenance.sha256,
        image_size=model.image_size,
        num_windows=windows,
        round_size=min(MOST_IN_ROUND, max(1, 2 * batch_size // (windows or 1))),
    )


class _Handler(logging.Handler):
    """Sends the records of the library to the server, which writes them."""

    def __init__(self, send: Any) -> None:
        super().__init__()
        self._to_server = send

    def emit(self, record: logging.LogRecord) -> None:
        self._to_server(Logged(level=record.levelno, text=record.getMessage()))
