"""Run programs with torchrun: real processes on this machine, connected by Gloo."""

import os
import subprocess
import sys
from pathlib import Path


def torchrun(*words: str, cwd: Path | None = None) -> str:
    """The output of two processes of a program; an error if one of them fails.

    Args:
        words: a program and its flags, or `-m`, a module and its flags.
        cwd: the working directory; the current one if not given.
    """
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "CUDA_"))}
    environment |= {
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",  # what torchrun sets by itself, with a warning
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    finished = subprocess.run([*launcher, *words], cwd=cwd, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    return finished.stdout
