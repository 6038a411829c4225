"""The network with which the kernels of the normalisation are compared with torch's operations."""

from rediffuse.models.config import UNetConfig

CONFIG = UNetConfig(
    image_size=8,
    model_channels=32,
    channel_mult=(1, 2),
    attention_resolutions=(2,),
    num_head_channels=32,
    use_scale_shift_norm=True,
    resblock_updown=True,
)
