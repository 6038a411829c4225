"""Whole models: a network with its process and its provenance, and where published ones come from."""
