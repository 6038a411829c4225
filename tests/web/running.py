"""A real server in its own process, with a tiny untrained model, and the images that tests send."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from PIL import Image

from detection import tiny

SIZE = 16


@dataclass
class Running:
    """A server that answers."""

    process: subprocess.Popen[str]
    url: str
    log: Path

    def client(self, **options: Any) -> httpx2.Client:
        # Without TLS there is nothing to verify, and reading the certificates takes longer than a request.
        return httpx2.Client(base_url=self.url, timeout=60, verify=False, **options)

    def children(self) -> list[int]:
        """The process ids of the server's own processes; the worker is the one with the most memory."""
        listed = subprocess.run(
            ["ps", "-o", "pid=,rss=", "--ppid", str(self.process.pid)], capture_output=True, text=True, check=False
        )
        rows = [tuple(map(int, line.split())) for line in listed.stdout.splitlines()]
        return [pid for pid, _ in sorted(rows, key=lambda row: -row[1])]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(60)


def save_weights(folder: Path) -> Path:
    """A folder with a model and, in detector/ and second/, detectors that find every image unsure."""
    model = tiny.save_weights(folder)
    tiny.unsure_detector(model, crop="windows:4").save(folder / "second")
    return folder


@contextmanager
def serve(weights: Path, log: Path, *words: str, limit: Callable[[], None] | None = None) -> Iterator[Running]:
    """Run `rediffuse serve` on a free port until the block ends.

    Args:
        weights: from `save_weights`.
        log: gets standard error.
        words: further flags.
        limit: called in the new process before the program starts.
    """
    flags = ["--port", "0", "--model", str(weights), "--detector", str(weights / "detector"), "--device", "cpu"]
    command = [sys.executable, "-m", "rediffuse", "serve", *flags, *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("REDIFFUSE_TOKEN", None)
    with log.open("w") as file:
        process = subprocess.Popen(command, stderr=file, text=True, env=environment, preexec_fn=limit)
    try:
        yield Running(process, _address(process, log), log)
    finally:
        process.kill()
        process.wait()


def picture(seed: int = 0, kind: str = "PNG", size: Sequence[int] = (48, 40)) -> bytes:
    """The bytes of an image file."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def files(*named: tuple[str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    """The form of an upload."""
    return [("files", one) for one in named]


def _address(process: subprocess.Popen[str], log: Path) -> str:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        if found := re.search(r"^(http://\S+): listening", log.read_text(), re.MULTILINE):
            return found[1]
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    raise AssertionError(log.read_text())
