"""The parts of mpi4py that programs for guided-diffusion use, for processes of torchrun or a single process."""
