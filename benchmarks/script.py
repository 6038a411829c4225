"""The command line of a benchmark, whose flags are a dataclass, like those of the commands of `rediffuse`."""

import shutil
import sys
from pathlib import Path
from typing import TypeVar

from rediffuse.cli.flags import asks_for_help, help_text, parse
from rediffuse.errors import ConfigError

T = TypeVar("T")


def read_flags(kind: type[T]) -> T:
    """Read the flags of this call. `--help` prints help, a wrong flag an error of one line; both end the process."""
    words, command = sys.argv[1:], f"python {Path(sys.argv[0])}"
    if asks_for_help(words):
        print(help_text(kind, command=command, width=min(100, shutil.get_terminal_size().columns)))
        sys.exit()
    try:
        return parse(kind, words, command=command)
    except ConfigError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
