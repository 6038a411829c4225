"""The training loop, and the trainings that it runs: diffusion models, classifiers, upscalers, detectors."""
