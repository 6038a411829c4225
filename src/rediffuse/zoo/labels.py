"""Check the class labels of images, and convert them for a model."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rediffuse.errors import ConfigError
from rediffuse.transfer import to_device
from rediffuse.zoo.model import DiffusionModel

Labels = Tensor | Sequence[int]
"""One class per image: whole numbers, a tensor (N,) or a sequence of N."""


def class_labels(
    model: DiffusionModel, labels: Labels | None, num_images: int, *, guided: bool = False
) -> Tensor | None:
    """The labels of `num_images` images for `model`.

    Args:
        model: the model; it needs labels if and only if it is class-conditional.
        labels: whole numbers from 0 to `model.num_classes` - 1, one per image.
        num_images: N.
        guided: whether a guidance also needs labels.

    Returns:
        (N,) int64 on the model's device; None if neither model nor guidance needs labels.

    Raises:
        ConfigError: labels are missing, not allowed, out of range, not whole numbers, or not N.
    """
    num_classes = model.num_classes
    if num_classes is None and not guided:
        if labels is not None:
            raise ConfigError("labels: this model is not class-conditional; leave them out")
        return None
    classes = "one class of 0 or more" if num_classes is None else f"one class from 0 to {num_classes - 1}"
    needed = f"{classes} per image ({num_images})"
    if labels is None:
        who = "guidance" if num_classes is None else "this class-conditional model"
        raise ConfigError(f"labels: none are given; {who} needs {needed}")
    try:
        tensor = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError):
        raise ConfigError(f"labels: given {labels!r}; {needed} is needed") from None
    if tensor.shape != (num_images,) or tensor.is_floating_point() or tensor.dtype == torch.bool:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise ConfigError(f"labels: given {tuple(tensor.shape)} {kind}; {needed} is needed")
    low, high = int(tensor.min()), int(tensor.max())
    if low < 0 or (num_classes is not None and high >= num_classes):
        raise ConfigError(f"labels: class {low if low < 0 else high} is given; {needed} is needed")
    return to_device(tensor.to(torch.int64), model.device)
