"""Image files and pixels (numpy, uint8, channels last) to tensors (float, channels first, [-1, 1]) and back."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rediffuse.errors import ConfigError
from rediffuse.files import write_bytes
from rediffuse.images.decode import decode, pixels_of
from rediffuse.images.encode import png_bytes
from rediffuse.images.find import ImageLike, as_list
from rediffuse.images.montage import tile
from rediffuse.images.windows import network_inputs


def read_image(image: ImageLike | Sequence[ImageLike], size: int = 256, crop: str = "center") -> Tensor:
    """One image, or several, as `reconstruct` and `invert` take them.

    Args:
        image: the path of an image file, a Pillow image, or an array, uint8 (H, W, 3), RGB; or a sequence of N such.
        size: side of the square, in pixels; `model.image_size` for a model.
        crop: `center` scales the shorter side to `size` and cuts the middle; `squash` scales both sides. `windows:W`
            cuts up to W windows out of each image without resampling (`images.windows`).

    Returns:
        x_0, (N, 3, size, size) float32 in [-1, 1]; N is 1 for one image, and with `windows:W` the number of windows.

    Raises:
        ImageError: a file, or what is given, cannot be used as an image, or is smaller than a window.
        ConfigError: `size` is below 1, or there is no such crop.
    """
    if size < 1:
        raise ConfigError(f"size={size}: at least 1 is needed")
    images = [(_pixels(one, place), f"image {place}") for place, one in enumerate(as_list(image))]
    if not images:
        raise ConfigError("image: given none; at least 1 is needed")
    return to_tensor(np.concatenate([network_inputs(pixels, size, crop, name)[0] for pixels, name in images]))


def write_image(path: Path | str, x: Tensor, *, columns: int | None = None) -> None:
    """Write an image, or several laid out in rows, to a PNG file.

    Args:
        path: of the file; folders above it are made, and a file that is there is replaced.
        x: (3, H, W) or (N, 3, H, W) in [-1, 1]; values beyond are clamped.
        columns: images in a row; None makes the picture as square as N allows.

    Raises:
        ConfigError: a tensor of another shape.
        StorageError: the file cannot be written.
    """
    images = x[None] if x.ndim == 3 else x
    if images.ndim != 4 or images.shape[1] != 3 or not len(images):
        raise ConfigError(f"x: given {tuple(x.shape)}; (3, H, W) or (N, 3, H, W) is needed")
    write_bytes(Path(path), png_bytes(tile(to_uint8(images), columns)))


def to_tensor(pixels: np.ndarray) -> Tensor:
    """x_0 = pixels/127.5 - 1.

    Args:
        pixels: uint8, (..., H, W, 3).

    Returns:
        float32, (..., 3, H, W), in [-1, 1].
    """
    assert pixels.dtype == np.uint8, pixels.dtype
    writable = np.require(pixels, requirements="W")  # torch warns about read-only arrays, such as those of an .npz
    return torch.from_numpy(writable).movedim(-1, -3).float().div(127.5).sub(1).contiguous()


def to_uint8(x: Tensor) -> np.ndarray:
    """Round images in [-1, 1] to the nearest pixel values; others are clamped. The exact inverse of `to_tensor`.

    Args:
        x: float, (..., 3, H, W).

    Returns:
        uint8, (..., H, W, 3).
    """
    return _to_pixels(((x.float() + 1) * 127.5).round())


def to_uint8_floor(x: Tensor) -> np.ndarray:
    """Convert images in [-1, 1] to pixels as guided-diffusion and DIRE do: rounded down, half a level darker.

    Arguments and result as `to_uint8`.
    """
    return _to_pixels((x.float() + 1) * 127.5)


def map_to_uint8_floor(values: Tensor) -> np.ndarray:
    """Convert a map |x_0 - x_0_hat| to an image as the original DIRE does: 0 is black, 2 is white, rounded down.

    Args:
        values: float, (..., 3, H, W), in [0, 2].

    Returns:
        uint8, (..., H, W, 3).
    """
    return _to_pixels(values.float() * 255 / 2)


def _pixels(image: ImageLike, place: int) -> np.ndarray:
    return decode(Path(image)).pixels if isinstance(image, Path | str) else pixels_of(image, f"image {place}")


def _to_pixels(levels: Tensor) -> np.ndarray:
    return levels.clamp(0, 255).to(torch.uint8).movedim(-3, -1).contiguous().cpu().numpy()
