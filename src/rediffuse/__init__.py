"""rediffuse: guided diffusion, diffusion inversion, and the detection of generated images by what does not return."""
