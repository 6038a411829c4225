"""Networks and processes from the flags of the old programs."""

import argparse

import pytest
import torch

from rediffuse.compat.guided_diffusion import script_util
from rediffuse.compat.guided_diffusion.gaussian_diffusion import LossType, ModelMeanType, ModelVarType

DIFFUSION = {
    "learn_sigma": False,
    "diffusion_steps": 1000,
    "noise_schedule": "linear",
    "timestep_respacing": "",
    "use_kl": False,
    "predict_xstart": False,
    "rescale_timesteps": False,
    "rescale_learned_sigmas": False,
}
CLASSIFIER = {
    "image_size": 64,
    "classifier_use_fp16": False,
    "classifier_width": 128,
    "classifier_depth": 2,
    "classifier_attention_resolutions": "32,16,8",
    "classifier_use_scale_shift_norm": True,
    "classifier_resblock_updown": True,
    "classifier_pool": "attention",
}
MODEL = {
    "image_size": 64,
    "num_channels": 128,
    "num_res_blocks": 2,
    "num_heads": 4,
    "num_heads_upsample": -1,
    "num_head_channels": -1,
    "attention_resolutions": "16,8",
    "channel_mult": "",
    "dropout": 0.0,
    "class_cond": False,
    "use_checkpoint": False,
    "use_scale_shift_norm": True,
    "resblock_updown": False,
    "use_fp16": False,
    "use_new_attention_order": False,
}
NOT_OF_SUPERRES = ("image_size", "channel_mult", "use_new_attention_order")


def test_defaults() -> None:
    assert script_util.NUM_CLASSES == 1000
    assert script_util.diffusion_defaults() == DIFFUSION
    assert script_util.classifier_defaults() == CLASSIFIER
    assert script_util.model_and_diffusion_defaults() == MODEL | DIFFUSION
    assert script_util.classifier_and_diffusion_defaults() == CLASSIFIER | DIFFUSION
    superres = {name: value for name, value in (MODEL | DIFFUSION).items() if name not in NOT_OF_SUPERRES}
    assert script_util.sr_model_and_diffusion_defaults() == superres | {"large_size": 256, "small_size": 64}


def test_a_command_line_becomes_a_model_and_its_process() -> None:
    defaults = script_util.model_and_diffusion_defaults() | {"clip_denoised": True, "model_path": "", "note": None}
    parser = argparse.ArgumentParser()
    script_util.add_dict_to_argparser(parser, defaults)
    line = (
        "--image_size 16 --num_channels 64 --num_res_blocks 1 --channel_mult 0.5,1 --attention_resolutions 8 "
        "--learn_sigma True --class_cond yes --noise_schedule cosine --diffusion_steps 100 --timestep_respacing ddim10 "
        "--num_heads 2 --clip_denoised no --note here"
    )
    args = parser.parse_args(line.split())
    assert (args.clip_denoised, args.note, args.model_path) == (False, "here", "")
    flags = script_util.args_to_dict(args, script_util.model_and_diffusion_defaults().keys())
    model, diffusion = script_util.create_model_and_diffusion(**flags)
    config = model.config
    assert (config.channel_mult, config.attention_resolutions) == ((0.5, 1), (2,))
    assert (config.out_channels, config.num_classes, config.num_heads) == (6, 1000, 2)
    assert config.use_scale_shift_norm
    assert diffusion.timestep_map == list(range(0, 100, 10))
    assert diffusion.model_var_type == ModelVarType.LEARNED_RANGE


def test_programs_set_the_number_of_classes_in_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script_util, "NUM_CLASSES", 12)
    model = script_util.create_model(16, 32, 1, channel_mult="1", class_cond=True)
    assert model.num_classes == model.config.num_classes == 12


@pytest.mark.parametrize(
    ("size", "channel_mult"),
    [(64, (1, 2, 3, 4)), (128, (1, 1, 2, 3, 4)), (256, (1, 1, 2, 2, 4, 4)), (512, (0.5, 1, 1, 2, 2, 4, 4))],
)
def test_the_image_size_decides_the_multipliers(size: int, channel_mult: tuple[float, ...]) -> None:
    with torch.device("meta"):
        model = script_util.create_model(size, 64, 1, attention_resolutions="32,8")
        classifier = script_util.create_classifier(**CLASSIFIER | {"image_size": size, "classifier_width": 64})
    assert model.config.channel_mult == classifier.config.channel_mult == channel_mult
    assert model.config.attention_resolutions == (size // 32, size // 8)
    assert classifier.config.out_channels == 1000


@pytest.mark.parametrize(("size", "levels"), [(64, 4), (256, 6), (512, 6)])
def test_super_resolution_has_multipliers_of_its_own(size: int, levels: int) -> None:
    flags = script_util.sr_model_and_diffusion_defaults() | {"large_size": size, "num_channels": 32}
    with torch.device("meta"):
        model, _ = script_util.sr_create_model_and_diffusion(**flags)
    assert len(model.config.channel_mult) == levels
    assert (model.image_size, model.in_channels, model.out_channels) == (size, 6, 3)


def test_a_size_without_multipliers_is_refused() -> None:
    with pytest.raises(ValueError, match="image_size=32: 64, 128, 256, 512 are allowed, or give channel_mult"):
        script_util.create_model(32, 32, 1)
    with pytest.raises(ValueError, match=r"large_size=32: 64, 256, 512 are allowed$"):  # there is no flag channel_mult
        script_util.sr_create_model_and_diffusion(**script_util.sr_model_and_diffusion_defaults() | {"large_size": 32})


def test_a_classifier_comes_with_its_process() -> None:
    flags = CLASSIFIER | DIFFUSION | {"classifier_width": 64, "classifier_depth": 1, "classifier_pool": "spatial"}
    flags |= {"classifier_use_fp16": True, "classifier_attention_resolutions": "16", "timestep_respacing": "250"}
    with torch.device("meta"):
        classifier, diffusion = script_util.create_classifier_and_diffusion(**flags)
    assert (classifier.pool, classifier.dtype, classifier.num_head_channels) == ("spatial", torch.float16, 64)
    assert diffusion.num_timesteps == 250


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, (ModelMeanType.EPSILON, ModelVarType.FIXED_LARGE, LossType.MSE)),
        ({"sigma_small": True}, (ModelMeanType.EPSILON, ModelVarType.FIXED_SMALL, LossType.MSE)),
        ({"learn_sigma": True}, (ModelMeanType.EPSILON, ModelVarType.LEARNED_RANGE, LossType.MSE)),
        ({"predict_xstart": True}, (ModelMeanType.START_X, ModelVarType.FIXED_LARGE, LossType.MSE)),
        ({"rescale_learned_sigmas": True}, (ModelMeanType.EPSILON, ModelVarType.FIXED_LARGE, LossType.RESCALED_MSE)),
        (
            {"use_kl": True, "rescale_learned_sigmas": True},
            (ModelMeanType.EPSILON, ModelVarType.FIXED_LARGE, LossType.RESCALED_KL),
        ),
    ],
)
def test_process_flags(flags: dict[str, bool], expected: tuple[object, ...]) -> None:
    diffusion = script_util.create_gaussian_diffusion(**flags)
    assert (diffusion.model_mean_type, diffusion.model_var_type, diffusion.loss_type) == expected
    assert diffusion.num_timesteps == 1000


def test_respacing_may_be_a_list() -> None:
    assert script_util.create_gaussian_diffusion(steps=100, timestep_respacing=[5, 10]).num_timesteps == 15


@pytest.mark.parametrize(("text", "value"), [("Yes", True), ("t", True), ("1", True), ("no", False), ("F", False)])
def test_booleans_are_spelt_out(text: str, value: bool) -> None:
    assert script_util.str2bool(text) is script_util.str2bool(value) is value


def test_other_words_are_no_booleans() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="maybe"):
        script_util.str2bool("maybe")
