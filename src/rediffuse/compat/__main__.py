"""`python -m rediffuse.compat SCRIPT.py ARGS...`: run a program that was written for guided-diffusion.

The only module of `compat` that reads the environment and the clock.
"""

import os
import runpy
import sys
from datetime import datetime
from pathlib import Path

from rediffuse.allocator import keep_freed_memory
from rediffuse.compat.aliases import install
from rediffuse.errors import InputError, RediffuseError

USAGE = """usage: python -m rediffuse.compat SCRIPT.py [ARGS...]

Runs SCRIPT.py with rediffuse's adapter as guided_diffusion, and replacements for mpi4py and blobfile if they are not
installed. ARGS are passed to the script. Results go to the folder OPENAI_LOGDIR, or to a new one in ./logs. With
torchrun several processes work together."""


def main(words: list[str]) -> int:
    """Run the script `words[0]` with the other words as arguments; returns the exit status if the script returns."""
    if not words or words[0] in ("-h", "--help"):
        print(USAGE, file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    script = Path(words[0])
    try:
        if not script.is_file():
            raise InputError(f"{script}: there is no such file")
        # As Python itself would set it.
        sys.argv = words
        sys.path[0] = str(script.resolve().parent)
        log_dir = Path("logs") / f"{script.stem}-{datetime.now():%Y%m%d-%H%M%S}"
        install({**os.environ, "OPENAI_LOGDIR": os.environ.get("OPENAI_LOGDIR") or str(log_dir)})
        # DIRE's programs need this variable, also without a GPU. A value that lists all GPUs changes nothing.
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", _all_gpus())
        keep_freed_memory()
        runpy.run_path(str(script), run_name="__main__")
    except RediffuseError as error:
        print(f"rediffuse: {error}", file=sys.stderr)
        return 1
    except FileNotFoundError as error:  # usually a path that the user gave to the program
        if error.filename is None:
            raise
        print(f"rediffuse: {error.filename}: there is no such file", file=sys.stderr)
        return 1
    return 0


def _all_gpus() -> str:
    import torch  # slow, and not needed for the help or for a wrong file name

    return ",".join(map(str, range(torch.cuda.device_count())))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
