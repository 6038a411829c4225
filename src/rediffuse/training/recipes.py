"""Whole configurations of trainings, by name."""

from collections.abc import Callable

from rediffuse.diffusion.config import ProcessConfig
from rediffuse.models.config import UNetConfig
from rediffuse.training.config import DiffusionTraining, GridConfig, LoopConfig


def clothing32(data: str) -> DiffusionTraining:
    """The embedded default: 32 px and three million parameters, about an hour on two CPU cores."""
    return DiffusionTraining(
        data=data,
        network=UNetConfig(
            image_size=32,
            model_channels=32,
            out_channels=6,
            num_res_blocks=1,
            attention_resolutions=(4,),
            channel_mult=(1, 2, 4),
            num_head_channels=32,
            use_scale_shift_norm=True,
            resblock_updown=True,
        ),
        process=ProcessConfig(schedule="cosine"),
        loop=LoopConfig(
            num_steps=3200,
            batch_size=32,
            learning_rate=7e-4,
            warmup_steps=100,
            decay="cosine",
            clip_norm=1.0,
            ema_rates=(0.998,),
            save_every=200,
            evaluate_every=800,
        ),
        grid=GridConfig(num_images=36, num_sampling_steps=25),
    )


def imagenet64(data: str) -> DiffusionTraining:
    """ADM at 64 px (arXiv:2105.05233, Appendix I), which was published trained with `--class-conditional`."""
    return DiffusionTraining(
        data=data,
        network=UNetConfig(
            image_size=64,
            model_channels=192,
            out_channels=6,
            num_res_blocks=3,
            attention_resolutions=(2, 4, 8),
            channel_mult=(1, 2, 3, 4),
            dropout=0.1,
            num_head_channels=64,
            use_scale_shift_norm=True,
            resblock_updown=True,
            use_new_attention_order=True,
        ),
        process=ProcessConfig(schedule="cosine"),
        loop=LoopConfig(
            num_steps=540_000,
            batch_size=2048,
            microbatch=32,
            learning_rate=3e-4,
            ema_rates=(0.9999,),
            precision="fp16",
            num_workers=8,
            save_every=10_000,
            evaluate_every=10_000,
        ),
    )


RECIPES: dict[str, Callable[[str], DiffusionTraining]] = {"clothing32": clothing32, "imagenet64": imagenet64}
"""A recipe is given the folder of images."""
