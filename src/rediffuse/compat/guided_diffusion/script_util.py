"""Build networks and processes from the flags of guided-diffusion's programs, with the old names and defaults."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from inspect import signature
from typing import Any, cast

from rediffuse.compat.guided_diffusion.gaussian_diffusion import (
    LossType,
    ModelMeanType,
    ModelVarType,
    get_named_beta_schedule,
)
from rediffuse.compat.guided_diffusion.respace import SpacedDiffusion, space_timesteps
from rediffuse.compat.guided_diffusion.unet import EncoderUNetModel, SuperResModel, UNetModel
from rediffuse.diffusion.config import ScheduleName
from rediffuse.diffusion.script_flags import ProcessFlags, process_config
from rediffuse.models import script_flags
from rediffuse.models.config import EncoderConfig, Pool, UNetConfig
from rediffuse.models.script_flags import (
    ClassifierFlags,
    UNetFlags,
    classifier_config,
    superres_config,
    unet_config,
)

Flags = dict[str, Any]

NUM_CLASSES = script_flags.NUM_CLASSES
"""Number of classes of a class-conditional network; programs with other data assign another value."""


def diffusion_defaults() -> Flags:
    """The flags of a process."""
    process = asdict(ProcessFlags())
    del process["sigma_small"]  # `create_gaussian_diffusion` takes it, but no program has a flag for it
    return process | {"timestep_respacing": "", "use_kl": False, "rescale_learned_sigmas": False}


def classifier_defaults() -> Flags:
    """The flags of a classifier of noisy images."""
    return asdict(ClassifierFlags()) | {"classifier_use_fp16": False}


def model_and_diffusion_defaults() -> Flags:
    """The flags of a U-Net and its process."""
    return asdict(UNetFlags()) | {"use_fp16": False} | diffusion_defaults()


def classifier_and_diffusion_defaults() -> Flags:
    """The flags of a classifier and its noise process."""
    return classifier_defaults() | diffusion_defaults()


def sr_model_and_diffusion_defaults() -> Flags:
    """The flags of a super-resolution U-Net and its process."""
    flags = model_and_diffusion_defaults() | {"large_size": 256, "small_size": 64}
    return {name: flags[name] for name in signature(sr_create_model_and_diffusion).parameters}


def create_model(
    image_size: int,
    num_channels: int,
    num_res_blocks: int,
    channel_mult: str = "",
    learn_sigma: bool = False,
    class_cond: bool = False,
    use_checkpoint: bool = False,
    attention_resolutions: str = "16",
    num_heads: int = 1,
    num_head_channels: int = -1,
    num_heads_upsample: int = -1,
    use_scale_shift_norm: bool = False,
    dropout: float = 0,
    resblock_updown: bool = False,
    use_fp16: bool = False,
    use_new_attention_order: bool = False,
) -> UNetModel:
    """The U-Net of these flags. Raises ConfigError if they contradict each other.

    attention_resolutions: sides of the feature maps that have attention. channel_mult: multipliers separated by commas,
    fractions allowed; empty for the defaults of an image size of 64, 128, 256 or 512.
    """
    flags = UNetFlags(
        image_size=image_size,
        num_channels=num_channels,
        num_res_blocks=num_res_blocks,
        channel_mult=channel_mult,
        learn_sigma=learn_sigma,
        class_cond=class_cond,
        use_checkpoint=use_checkpoint,
        attention_resolutions=attention_resolutions,
        num_heads=num_heads,
        num_head_channels=num_head_channels,
        num_heads_upsample=num_heads_upsample,
        use_scale_shift_norm=use_scale_shift_norm,
        dropout=dropout,
        resblock_updown=resblock_updown,
        use_new_attention_order=use_new_attention_order,
    )
    return UNetModel(**_unet_arguments(unet_config(flags)), use_fp16=use_fp16)


def create_model_and_diffusion(
    image_size: int,
    class_cond: bool,
    learn_sigma: bool,
    num_channels: int,
    num_res_blocks: int,
    channel_mult: str,
    num_heads: int,
    num_head_channels: int,
    num_heads_upsample: int,
    attention_resolutions: str,
    dropout: float,
    diffusion_steps: int,
    noise_schedule: str,
    timestep_respacing: str,
    use_kl: bool,
    predict_xstart: bool,
    rescale_timesteps: bool,
    rescale_learned_sigmas: bool,
    use_checkpoint: bool,
    use_scale_shift_norm: bool,
    resblock_updown: bool,
    use_fp16: bool,
    use_new_attention_order: bool,
) -> tuple[UNetModel, SpacedDiffusion]:
    """A U-Net and its process; see `create_model` and `create_gaussian_diffusion`."""
    model = create_model(
        image_size=image_size,
        num_channels=num_channels,
        num_res_blocks=num_res_blocks,
        channel_mult=channel_mult,
        learn_sigma=learn_sigma,
        class_cond=class_cond,
        use_checkpoint=use_checkpoint,
        attention_resolutions=attention_resolutions,
        num_heads=num_heads,
        num_head_channels=num_head_channels,
        num_heads_upsample=num_heads_upsample,
        use_scale_shift_norm=use_scale_shift_norm,
        dropout=dropout,
        resblock_updown=resblock_updown,
        use_fp16=use_fp16,
        use_new_attention_order=use_new_attention_order,
    )
    diffusion = create_gaussian_diffusion(
        steps=diffusion_steps,
        learn_sigma=learn_sigma,
        noise_schedule=noise_schedule,
        timestep_respacing=timestep_respacing,
        use_kl=use_kl,
        predict_xstart=predict_xstart,
        rescale_timesteps=rescale_timesteps,
        rescale_learned_sigmas=rescale_learned_sigmas,
    )
    return model, diffusion


def create_classifier(
    image_size: int,
    classifier_use_fp16: bool,
    classifier_width: int,
    classifier_depth: int,
    classifier_attention_resolutions: str,
    classifier_use_scale_shift_norm: bool,
    classifier_resblock_updown: bool,
    classifier_pool: Pool,
) -> EncoderUNetModel:
    """The classifier of noisy images of these flags. Raises ConfigError if they contradict each other."""
    flags = ClassifierFlags(
        image_size=image_size,
        classifier_width=classifier_width,
        classifier_depth=classifier_depth,
        classifier_attention_resolutions=classifier_attention_resolutions,
        classifier_use_scale_shift_norm=classifier_use_scale_shift_norm,
        classifier_resblock_updown=classifier_resblock_updown,
        classifier_pool=classifier_pool,
    )
    return EncoderUNetModel(**_arguments(classifier_config(flags)), use_fp16=classifier_use_fp16)


def create_classifier_and_diffusion(
    image_size: int,
    classifier_use_fp16: bool,
    classifier_width: int,
    classifier_depth: int,
    classifier_attention_resolutions: str,
    classifier_use_scale_shift_norm: bool,
    classifier_resblock_updown: bool,
    classifier_pool: Pool,
    learn_sigma: bool,
    diffusion_steps: int,
    noise_schedule: str,
    timestep_respacing: str,
    use_kl: bool,
    predict_xstart: bool,
    rescale_timesteps: bool,
    rescale_learned_sigmas: bool,
) -> tuple[EncoderUNetModel, SpacedDiffusion]:
    """A classifier and its noise process; see `create_classifier` and `create_gaussian_diffusion`."""
    classifier = create_classifier(
        image_size=image_size,
        classifier_use_fp16=classifier_use_fp16,
        classifier_width=classifier_width,
        classifier_depth=classifier_depth,
        classifier_attention_resolutions=classifier_attention_resolutions,
        classifier_use_scale_shift_norm=classifier_use_scale_shift_norm,
        classifier_resblock_updown=classifier_resblock_updown,
        classifier_pool=classifier_pool,
    )
    diffusion = create_gaussian_diffusion(
        steps=diffusion_steps,
        learn_sigma=learn_sigma,
        noise_schedule=noise_schedule,
        timestep_respacing=timestep_respacing,
        use_kl=use_kl,
        predict_xstart=predict_xstart,
        rescale_timesteps=rescale_timesteps,
        rescale_learned_sigmas=rescale_learned_sigmas,
    )
    return classifier, diffusion


def sr_create_model(
    large_size: int,
    small_size: int,
    num_channels: int,
    num_res_blocks: int,
    learn_sigma: bool,
    class_cond: bool,
    use_checkpoint: bool,
    attention_resolutions: str,
    num_heads: int,
    num_head_channels: int,
    num_heads_upsample: int,
    use_scale_shift_norm: bool,
    dropout: float,
    resblock_updown: bool,
    use_fp16: bool,
) -> SuperResModel:
    """The super-resolution U-Net of these flags; `small_size` is not used, since the network takes images of any size.

    Raises ConfigError if the flags contradict each other.
    """
    flags = UNetFlags(
        image_size=large_size,
        num_channels=num_channels,
        num_res_blocks=num_res_blocks,
        learn_sigma=learn_sigma,
        class_cond=class_cond,
        use_checkpoint=use_checkpoint,
        attention_resolutions=attention_resolutions,
        num_heads=num_heads,
        num_head_channels=num_head_channels,
        num_heads_upsample=num_heads_upsample,
        use_scale_shift_norm=use_scale_shift_norm,
        dropout=dropout,
        resblock_updown=resblock_updown,
    )
    return SuperResModel(**_unet_arguments(superres_config(flags)), use_fp16=use_fp16)


def sr_create_model_and_diffusion(
    large_size: int,
    small_size: int,
    class_cond: bool,
    learn_sigma: bool,
    num_channels: int,
    num_res_blocks: int,
    num_heads: int,
    num_head_channels: int,
    num_heads_upsample: int,
    attention_resolutions: str,
    dropout: float,
    diffusion_steps: int,
    noise_schedule: str,
    timestep_respacing: str,
    use_kl: bool,
    predict_xstart: bool,
    rescale_timesteps: bool,
    rescale_learned_sigmas: bool,
    use_checkpoint: bool,
    use_scale_shift_norm: bool,
    resblock_updown: bool,
    use_fp16: bool,
) -> tuple[SuperResModel, SpacedDiffusion]:
    """A super-resolution U-Net and its process; see `sr_create_model` and `create_gaussian_diffusion`."""
    model = sr_create_model(
        large_size=large_size,
        small_size=small_size,
        num_channels=num_channels,
        num_res_blocks=num_res_blocks,
        learn_sigma=learn_sigma,
        class_cond=class_cond,
        use_checkpoint=use_checkpoint,
        attention_resolutions=attention_resolutions,
        num_heads=num_heads,
        num_head_channels=num_head_channels,
        num_heads_upsample=num_heads_upsample,
        use_scale_shift_norm=use_scale_shift_norm,
        dropout=dropout,
        resblock_updown=resblock_updown,
        use_fp16=use_fp16,
    )
    diffusion = create_gaussian_diffusion(
        steps=diffusion_steps,
        learn_sigma=learn_sigma,
        noise_schedule=noise_schedule,
        timestep_respacing=timestep_respacing,
        use_kl=use_kl,
        predict_xstart=predict_xstart,
        rescale_timesteps=rescale_timesteps,
        rescale_learned_sigmas=rescale_learned_sigmas,
    )
    return model, diffusion


def create_gaussian_diffusion(
    *,
    steps: int = 1000,
    learn_sigma: bool = False,
    sigma_small: bool = False,
    noise_schedule: str = "linear",
    use_kl: bool = False,
    predict_xstart: bool = False,
    rescale_timesteps: bool = False,
    rescale_learned_sigmas: bool = False,
    timestep_respacing: str | Sequence[int] = "",
) -> SpacedDiffusion:
    """The process of these flags, on all timesteps or on those of `timestep_respacing`.

    Raises ConfigError for an unknown schedule, or for a respacing that is impossible with this number of steps.
    """
    config = process_config(
        ProcessFlags(
            diffusion_steps=steps,
            noise_schedule=cast(ScheduleName, noise_schedule),
            learn_sigma=learn_sigma,
            sigma_small=sigma_small,
            predict_xstart=predict_xstart,
            rescale_timesteps=rescale_timesteps,
        )
    )
    mse = LossType.RESCALED_MSE if rescale_learned_sigmas else LossType.MSE
    return SpacedDiffusion(
        use_timesteps=space_timesteps(steps, timestep_respacing or [steps]),
        betas=get_named_beta_schedule(config.schedule, config.num_timesteps),
        model_mean_type=ModelMeanType(config.prediction),
        model_var_type=ModelVarType(config.variance),
        loss_type=LossType.RESCALED_KL if use_kl else mse,
        rescale_timesteps=config.rescale_timesteps,
    )


def add_dict_to_argparser(parser: ArgumentParser, default_dict: Mapping[str, Any]) -> None:
    """Add one flag per entry, of the type of its default; booleans need a value, and for None it is text."""
    for name, default in default_dict.items():
        kind = str if default is None else str2bool if isinstance(default, bool) else type(default)
        parser.add_argument(f"--{name}", default=default, type=kind)


def args_to_dict(args: Namespace, keys: Iterable[str]) -> Flags:
    """The parsed flags with these names."""
    return {key: getattr(args, key) for key in keys}


def str2bool(v: str | bool) -> bool:
    """yes, true, t, y, 1 or no, false, f, n, 0, in any case. Raises ArgumentTypeError for other text."""
    if isinstance(v, bool):
        return v
    yes, no = ("yes", "true", "t", "y", "1"), ("no", "false", "f", "n", "0")
    if v.lower() not in yes + no:
        raise ArgumentTypeError(f"{v!r}: {', '.join(yes + no)} are allowed")
    return v.lower() in yes


def _unet_arguments(config: UNetConfig) -> Flags:
    """The arguments of a U-Net's constructor, with this module's `NUM_CLASSES`."""
    return _arguments(config) | {"num_classes": None if config.num_classes is None else NUM_CLASSES}


def _arguments(config: UNetConfig | EncoderConfig) -> Flags:
    """The arguments of a network's constructor; networks with the old names have no spectral gates."""
    return {name: value for name, value in asdict(config).items() if name != "frequency"}
