"""An adapter: guided-diffusion's public names, and those that DIRE added, on top of this package's code.

A program written for `guided_diffusion` imports `rediffuse.compat.guided_diffusion` instead. The modules translate
arguments and results; `rediffuse.diffusion` and `rediffuse.models` compute.
"""
