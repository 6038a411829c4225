"""Programs written for other packages: their names, our code.

`python -m rediffuse.compat SCRIPT.py ARGS...` runs a program that was written for guided-diffusion; `install` does the
same inside Python.
"""

from rediffuse.compat.aliases import install

__all__ = ["install"]
