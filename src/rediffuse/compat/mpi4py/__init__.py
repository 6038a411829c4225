"""What programs for guided-diffusion import of mpi4py, for the processes that torchrun starts, or for a single one."""
