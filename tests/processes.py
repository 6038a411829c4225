"""Programs under torchrun: real processes of this machine, joined by Gloo."""

import os
import subprocess
import sys
from pathlib import Path


def torchrun(*words: str, cwd: Path | None = None) -> str:
    """What two processes of a program printed, once both have ended well.

    Args:
        words: a program and its flags, or `-m`, a module and its flags.
        cwd: where they run; here if not given.
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
