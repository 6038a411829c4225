"""Detection of generated images: features of reconstructions, classifiers, calibration, verdicts."""
