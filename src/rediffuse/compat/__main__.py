"""`python -m rediffuse.compat SCRIPT.py ARGS...`: run a program that was written for guided-diffusion.

The one place of `compat` that reads the environment and the clock.
"""

import os
import runpy
import sys
from datetime import datetime
from pathlib import Path

from rediffuse.compat.aliases import install
from rediffuse.errors import InputError, RediffuseError

USAGE = """usage: python -m rediffuse.compat SCRIPT.py [ARGS...]

Runs SCRIPT.py with guided_diffusion resolved to rediffuse's adapter, and mpi4py and blobfile provided where they are
not installed. ARGS are the script's own. Results go to the folder OPENAI_LOGDIR, or to a new one in ./logs. Under
torchrun the script's processes work together."""


def main(words: list[str]) -> int:
    """Run the script that `words` begin with; returns the exit status where the script does not exit by itself."""
    if not words or words[0] in ("-h", "--help"):
        print(USAGE, file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    script = Path(words[0])
    try:
        if not script.is_file():
            raise InputError(f"{script}: there is no such file")
        # What Python itself would have set.
        sys.argv = words
        sys.path[0] = str(script.resolve().parent)
        log_dir = Path("logs") / f"{script.stem}-{datetime.now():%Y%m%d-%H%M%S}"
        install({"OPENAI_LOGDIR": str(log_dir), **os.environ})
        # DIRE's programs ask for it, on a machine without a GPU too; one that hides no GPU says what its absence says.
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", _all_gpus())
        runpy.run_path(str(script), run_name="__main__")
    except RediffuseError as error:
        print(f"rediffuse: {error}", file=sys.stderr)
        return 1
    return 0


def _all_gpus() -> str:
    import torch  # takes seconds that help and a misspelt file need not wait for

    return ",".join(map(str, range(torch.cuda.device_count())))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
