"""Measure speed and memory, against this machine's matrix rate and against other programs."""
