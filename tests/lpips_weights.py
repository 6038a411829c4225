"""Random weights in the form of the published files of LPIPS."""

from pathlib import Path

import torch

from rediffuse.models.lpips import LINEAR_FILE, VGG16_FILE, Lpips


def write_lpips(folder: Path) -> Path:
    """Write both files, with the classifier that torchvision's file also holds; returns the folder."""
    generator = torch.Generator().manual_seed(0)
    state = {name: torch.empty_like(tensor) for name, tensor in Lpips().state_dict().items()}
    for name, tensor in state.items():
        if name.endswith("bias"):
            tensor.normal_(generator=generator).mul_(0.1)
        elif name.startswith("lin"):
            tensor.uniform_(generator=generator)
        else:
            tensor.normal_(generator=generator).mul_((2 / tensor[0].numel()) ** 0.5)
    vgg = {name: tensor for name, tensor in state.items() if name.startswith("features.")}
    torch.save({**vgg, "classifier.0.weight": torch.zeros(2, 2)}, folder / VGG16_FILE)
    torch.save({name: tensor for name, tensor in state.items() if name.startswith("lin")}, folder / LINEAR_FILE)
    return folder
