"""The parts of `frequency_ablation.py`."""
