"""The samplers, one file each. `diffusion.samplers` imports every module of this folder, which registers a sampler."""
