"""Run programs that were written for guided-diffusion, with its names on top of this package's code.

`python -m rediffuse.compat SCRIPT.py ARGS...` runs a program that was written for guided-diffusion; `install` does the
same inside Python.
"""

from rediffuse.compat.aliases import install

__all__ = ["install"]
