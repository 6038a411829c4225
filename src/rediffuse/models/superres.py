"""The U-Net that also takes a smaller version of the image: the upsampler of arXiv:2105.05233, section 4.4."""

import torch
import torch.nn.functional as F
from torch import Tensor

from rediffuse.errors import ConfigError
from rediffuse.models.config import AS_TRAINED, Preset, UNetConfig
from rediffuse.models.unet import Denoiser


class SuperResModel(Denoiser):
    """A U-Net whose input is the noisy image concatenated with the enlarged low-resolution one.

    The config's `in_channels` is that of the image; the first convolution has twice as many.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config, 2 * config.in_channels)

    def forward(
        self,
        x_t: Tensor,
        timesteps: Tensor,
        low_res: Tensor | None = None,
        y: Tensor | None = None,
        *,
        frequency: Preset = AS_TRAINED,
    ) -> Tensor:
        """As `UNetModel`, given low_res: (N, in_channels, h, w) in [-1, 1], of any size.

        Raises ConfigError where low_res is missing, or where size, channels or labels do not fit.
        """
        self.check_image(x_t)
        if low_res is None:
            raise ConfigError("a super-resolution model needs the image to enlarge: low_res is missing")
        if low_res.ndim != x_t.ndim or low_res.shape[:2] != x_t.shape[:2]:
            needed = ", ".join(map(str, x_t.shape[:2]))
            raise ConfigError(f"low_res of shape {tuple(low_res.shape)}: ({needed}, ...) is needed, as in x_t")
        mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[self.config.dims]
        upsampled = F.interpolate(low_res, x_t.shape[2:], mode=mode)
        return self.denoise(torch.cat([x_t, upsampled], dim=1), timesteps, y, frequency)
