"""Recipes: complete settings of trainings, by name."""

from collections.abc import Callable
from dataclasses import replace

from rediffuse.diffusion.config import ProcessConfig
from rediffuse.models.config import EncoderConfig, UNetConfig
from rediffuse.training.config import (
    ClassifierTraining,
    DiffusionTraining,
    GridConfig,
    LoopConfig,
    SuperResTraining,
)


def clothing32(data: str) -> DiffusionTraining:
    """The recipe of the embedded model: 32 px, three million parameters, about an hour on two CPU cores."""
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


def windows32(data: str) -> DiffusionTraining:
    """For windows of 32 px at native scale (`benchmarks/window_data.py`): some hours on one CPU core.

    `benchmarks/network_search.py` chose the network and the timesteps; docs/detection.md has its table.
    """
    recipe = clothing32(data)
    loop = replace(
        recipe.loop,
        num_steps=12_000,
        batch_size=16,
        learning_rate=5e-4,
        warmup_steps=200,
        ema_rates=(0.999,),
        evaluate_every=1000,
    )
    return replace(recipe, loop=loop, timestep_sampler="low_noise")


def clothing64(data: str) -> DiffusionTraining:
    """64 px and 34 million parameters, for a GPU."""
    return DiffusionTraining(
        data=data,
        network=UNetConfig(
            image_size=64,
            model_channels=96,
            out_channels=6,
            num_res_blocks=2,
            attention_resolutions=(4, 8),
            channel_mult=(1, 2, 2, 3),
            num_head_channels=32,
            dropout=0.1,
            use_scale_shift_norm=True,
            resblock_updown=True,
        ),
        process=ProcessConfig(schedule="cosine"),
        loop=LoopConfig(
            num_steps=40_000,
            batch_size=64,
            learning_rate=3e-4,
            warmup_steps=500,
            decay="cosine",
            clip_norm=1.0,
            ema_rates=(0.999,),
            precision="bf16",
            save_every=2000,
            evaluate_every=2000,
        ),
    )


def imagenet64(data: str) -> DiffusionTraining:
    """ADM at 64 px (arXiv:2105.05233, Appendix I). The published model was trained with `--class-conditional`."""
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


def clothing32_classifier(data: str) -> ClassifierTraining:
    """A classifier to guide `clothing32`, with the same noise schedule: three minutes on two CPU cores."""
    return ClassifierTraining(
        data=data,
        network=EncoderConfig(
            image_size=32,
            model_channels=32,
            out_channels=10,
            num_res_blocks=1,
            attention_resolutions=(4,),
            channel_mult=(1, 2, 4),
            num_head_channels=32,
            use_scale_shift_norm=True,
            resblock_updown=True,
            pool="attention",
        ),
        process=ProcessConfig(schedule="cosine"),
        loop=LoopConfig(
            num_steps=400,
            batch_size=32,
            learning_rate=1e-3,
            weight_decay=0.05,
            warmup_steps=20,
            decay="linear",
            clip_norm=1.0,
            ema_rates=(0.98,),
            save_every=200,
            evaluate_every=200,
        ),
    )


def clothing64_superres(data: str) -> SuperResTraining:
    """Super-resolution from 32 px, the size of `clothing32`, to 64 px: three minutes on two CPU cores."""
    return SuperResTraining(
        data=data,
        small_size=32,
        network=UNetConfig(
            image_size=64,
            model_channels=32,
            out_channels=6,
            num_res_blocks=1,
            channel_mult=(1, 1, 2),
            use_scale_shift_norm=True,
            resblock_updown=True,
        ),
        process=ProcessConfig(schedule="linear"),
        loop=LoopConfig(
            num_steps=400,
            batch_size=8,
            learning_rate=7e-4,
            warmup_steps=20,
            decay="cosine",
            clip_norm=1.0,
            ema_rates=(0.98,),
            save_every=200,
            evaluate_every=200,
        ),
        grid=GridConfig(num_images=9, num_sampling_steps=25),
    )


RECIPES: dict[str, Callable[[str], DiffusionTraining]] = {
    "clothing32": clothing32,
    "windows32": windows32,
    "clothing64": clothing64,
    "imagenet64": imagenet64,
}
"""The recipes of diffusion models. The argument of a recipe is the folder of images."""
CLASSIFIER_RECIPES: dict[str, Callable[[str], ClassifierTraining]] = {"clothing32_classifier": clothing32_classifier}
SUPERRES_RECIPES: dict[str, Callable[[str], SuperResTraining]] = {"clothing64_superres": clothing64_superres}
