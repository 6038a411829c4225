"""Generate images with a model: sampling, guidance, super-resolution, latents and their interpolation."""
