"""DIRE: invert an image, reconstruct it, keep the error."""
