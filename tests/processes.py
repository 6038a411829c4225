"""Run programs with torchrun, and end them as `timeout` does: real processes on this machine, connected by Gloo."""

import os
import subprocess
import sys
import time
from pathlib import Path

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


def torchrun(*words: str, cwd: Path | None = None) -> str:
    """The output of two processes of a program; an error if one of them fails.

    Args:
        words: a program and its flags, or `-m`, a module and its flags.
        cwd: the working directory; the current one if not given.
    """
    command = [sys.executable, *TORCHRUN, *words]
    finished = subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    return finished.stdout


def stopped_by_timeout(*words: str, begun: Path, cwd: Path | None = None) -> str:
    """The output of a program that `timeout` stops, with SIGTERM to its whole process group.

    `timeout` does it when it receives SIGTERM itself, as when its time is over; so no test depends on the speed of the
    machine.

    Args:
        words: as for `torchrun`; with `*TORCHRUN` before them for two processes.
        begun: a file that the program writes in its training; the signal is sent when it exists.
        cwd: as for `torchrun`.
    """
    command = ["timeout", "600", sys.executable, *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=cwd, env=environment(), **pipes) as process:
        while not begun.exists() and process.poll() is None:
            time.sleep(0.05)
        process.terminate()
        return process.communicate()[0]


def environment() -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "CUDA_"))}
    return inherited | {
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",  # what torchrun sets by itself, with a warning
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
