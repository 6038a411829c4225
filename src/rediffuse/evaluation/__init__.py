"""Measure the quality of a diffusion model: bits per dimension, and distances between its samples and images."""
