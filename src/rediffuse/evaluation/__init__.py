"""How good a diffusion model is: bits per dimension, and distances between its samples and images."""
