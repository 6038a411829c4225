"""`python -m rediffuse` is the same as `rediffuse`."""

import sys

from rediffuse.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
