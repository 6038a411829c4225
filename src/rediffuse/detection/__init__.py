"""From reconstructions to calibrated verdicts."""
