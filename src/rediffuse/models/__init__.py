"""The networks: ADM U-Net, its encoder and super-resolution forms, and their checkpoints."""
