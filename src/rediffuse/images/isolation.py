"""Decode a file in a process that the system stops at a limit of CPU time and memory; the callers go on.

A process is started when it is needed and then waits for the next file; there are at most as many as threads that
decode at the same time. It is a new Python (`worker`), not a fork, which torch's threads do not survive; it imports
neither torch nor numpy, so that it starts in less than 0.1 s.
"""

import atexit
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from dataclasses import asdict
from typing import IO

from rediffuse.errors import ImageError
from rediffuse.images import messages
from rediffuse.images.headers import Stored
from rediffuse.images.limits import Limits

MAX_FILES = 200
"""Files per process; afterwards a new one is started, so that no leak of a codec adds up."""
PIPE_BYTES = 1 << 20
"""Size of the pipes on Linux, the largest that the system allows every user; a small one costs a switch between the
processes for every 64 kB."""
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(16 << 20), "MALLOC_TRIM_THRESHOLD_": str(32 << 20)}
"""glibc keeps up to 32 MiB that were freed, in blocks of up to 16 MiB: to get them from the system again for every file
costs about as much as the decoding of a BMP file. They count as memory of the next file."""
PATIENCE = 60
"""A process that waits for something uses no CPU time; it is ended after this multiple of the budget in real time."""


def decode_isolated(
    content: bytes, name: str, limits: Limits, *, first_frame: bool
) -> Generator[Stored | bytes, None, None]:
    """What `rows.decode_rows` yields, from another process.

    Raises:
        ImageError: as `rows.decode_rows`, or the decoding exceeds the budget of `limits`, or ends its process.
    """
    worker = _idle()
    try:
        yield from worker.decode(content, name, limits, first_frame)
    finally:
        _release(worker)


class _Worker:
    """A process that decodes, and its pipes."""

    def __init__(self) -> None:
        # The path of this process, also where it was not set by the environment.
        program = f"import sys; sys.path[:] = {sys.path!r}; from rediffuse.images.worker import main; main()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # libtiff and others write lines of their own
            pipesize=PIPE_BYTES,
            env=os.environ | KEEP_MEMORY,
            start_new_session=True,  # Ctrl-C is for this process, which may go on and save
        )
        self.num_files = 0
        self.is_ready = True
        """Whether it waits for a file: not if it was ended, or has not sent all rows of the last one."""

    def decode(
        self, content: bytes, name: str, limits: Limits, first_frame: bool
    ) -> Generator[Stored | bytes, None, None]:
        self.is_ready = False
        self.num_files += 1
        timer = threading.Timer(PATIENCE * limits.seconds, self.process.kill)
        timer.daemon = True
        timer.start()
        try:
            request = {"name": name, "limits": asdict(limits), "first_frame": first_frame}
            messages.write(self._stdin, messages.REQUEST, json.dumps(request).encode())
            messages.write(self._stdin, messages.FILE, content)
            while True:
                kind, payload = messages.read(self._stdout)
                if kind == messages.STORED:
                    fields = json.loads(payload)
                    yield Stored(**fields | {"size": tuple(fields["size"])})
                elif kind == messages.ROWS:
                    yield payload
                else:
                    self.is_ready = True
                    if kind == messages.ERROR:
                        raise ImageError(payload.decode())
                    return
        except (EOFError, BrokenPipeError):
            raise ImageError(f"{name}: {self._cause(limits)}") from None
        finally:
            timer.cancel()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()  # closes the pipes

    @property
    def _stdin(self) -> IO[bytes]:
        assert self.process.stdin is not None
        return self.process.stdin

    @property
    def _stdout(self) -> IO[bytes]:
        assert self.process.stdout is not None
        return self.process.stdout

    def _cause(self, limits: Limits) -> str:
        """Why the process ended."""
        code = self.process.wait()
        if code == -signal.SIGXCPU:
            return f"takes more than {limits.seconds} s to decode: save it smaller, or in another format"
        if code == -signal.SIGKILL:
            waited = PATIENCE * limits.seconds
            return f"decoding was stopped by the system or after {waited} s of waiting: try again, or save it smaller"
        reason = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return f"damaged: the decoder was ended by it ({reason}): copy or download it again"


_waiting: queue.SimpleQueue[_Worker] = queue.SimpleQueue()


def _idle() -> _Worker:
    """A process without a file: one that waits, or a new one."""
    while True:
        try:
            worker = _waiting.get_nowait()
        except queue.Empty:
            return _Worker()
        if worker.process.poll() is None:
            return worker
        worker.end()


def _release(worker: _Worker) -> None:
    if worker.is_ready and worker.num_files < MAX_FILES:
        _waiting.put(worker)
    else:
        worker.end()


def _end_all() -> None:
    while not _waiting.empty():
        _waiting.get().end()


def _forget() -> None:
    global _waiting
    _waiting = queue.SimpleQueue()


atexit.register(_end_all)
os.register_at_fork(after_in_child=_forget)  # the pipes are the parent's
