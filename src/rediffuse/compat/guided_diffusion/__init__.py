"""guided-diffusion's public names (and those that DIRE added) on the code of this package: an adapter.

A program written for `guided_diffusion` imports `rediffuse.compat.guided_diffusion` instead. The modules translate and
call; what is computed is computed in `rediffuse.diffusion` and `rediffuse.models`.
"""
