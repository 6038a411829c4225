"""Pixels (numpy, uint8, channels last) to tensors (float, channels first, [-1, 1]) and back."""

import numpy as np
import torch
from torch import Tensor


def to_tensor(pixels: np.ndarray) -> Tensor:
    """x_0 = pixels/127.5 - 1.

    Args:
        pixels: uint8, (..., H, W, 3).

    Returns:
        float32, (..., 3, H, W), in [-1, 1].
    """
    assert pixels.dtype == np.uint8, pixels.dtype
    writable = np.require(pixels, requirements="W")  # torch warns of others, such as those of an .npz
    return torch.from_numpy(writable).movedim(-1, -3).float().div(127.5).sub(1).contiguous()


def to_uint8(x: Tensor) -> np.ndarray:
    """The nearest pixels of images in [-1, 1]; values beyond are clamped. Undoes `to_tensor` exactly.

    Args:
        x: float, (..., 3, H, W).

    Returns:
        uint8, (..., H, W, 3).
    """
    return _to_pixels(((x.float() + 1) * 127.5).round())


def to_uint8_floor(x: Tensor) -> np.ndarray:
    """The pixels of images in [-1, 1] as guided-diffusion and DIRE write them: rounded down, half a level darker.

    Arguments and result as `to_uint8`.
    """
    return _to_pixels((x.float() + 1) * 127.5)


def map_to_uint8_floor(values: Tensor) -> np.ndarray:
    """The image that the original DIRE writes of a map |x_0 - x_0_hat|: 0 is black, 2 is white, rounded down.

    Args:
        values: float, (..., 3, H, W), in [0, 2].

    Returns:
        uint8, (..., H, W, 3).
    """
    return _to_pixels(values.float() * 255 / 2)


def _to_pixels(levels: Tensor) -> np.ndarray:
    return levels.clamp(0, 255).to(torch.uint8).movedim(-3, -1).contiguous().cpu().numpy()
