"""DIRE: invert images, reconstruct them, and store the reconstruction errors."""
