"""The mathematics of diffusion: processes, samplers, losses. It contains no networks, and does not choose devices."""
