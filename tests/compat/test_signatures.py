"""The old public names exist in the same modules, with the same parameters, order and defaults."""

import importlib
import inspect
from typing import Any

import pytest

LOOP = (
    "(self, model, shape, noise=None, clip_denoised=True, denoised_fn=None, cond_fn=None, model_kwargs=None, "
    "device=None, progress=False"
)
STEP = "(self, model, x, t, clip_denoised=True, denoised_fn=None"
TRUNK = (
    "(self, image_size, in_channels, model_channels, out_channels, num_res_blocks, attention_resolutions, dropout=0, "
    "channel_mult=(1, 2, 4, 8), conv_resample=True, dims=2"
)
HEADS = (
    "use_checkpoint=False, use_fp16=False, num_heads=1, num_head_channels=-1, num_heads_upsample=-1, "
    "use_scale_shift_norm=False, resblock_updown=False, use_new_attention_order=False"
)
DIFFUSION_FLAGS = (
    "diffusion_steps, noise_schedule, timestep_respacing, use_kl, predict_xstart, rescale_timesteps, "
    "rescale_learned_sigmas"
)
CLASSIFIER_FLAGS = (
    "image_size, classifier_use_fp16, classifier_width, classifier_depth, classifier_attention_resolutions, "
    "classifier_use_scale_shift_norm, classifier_resblock_updown, classifier_pool"
)

SIGNATURES = {
    "gaussian_diffusion": {
        "get_named_beta_schedule": "(schedule_name, num_diffusion_timesteps)",
        "betas_for_alpha_bar": "(num_diffusion_timesteps, alpha_bar, max_beta=0.999)",
        "LossType.is_vb": "(self)",
        "GaussianDiffusion.__init__": (
            "(self, *, betas, model_mean_type, model_var_type, loss_type, rescale_timesteps=False)"
        ),
        "GaussianDiffusion.q_mean_variance": "(self, x_start, t)",
        "GaussianDiffusion.q_sample": "(self, x_start, t, noise=None)",
        "GaussianDiffusion.q_posterior_mean_variance": "(self, x_start, x_t, t)",
        "GaussianDiffusion.p_mean_variance": f"{STEP}, model_kwargs=None)",
        "GaussianDiffusion.condition_mean": "(self, cond_fn, p_mean_var, x, t, model_kwargs=None)",
        "GaussianDiffusion.condition_score": "(self, cond_fn, p_mean_var, x, t, model_kwargs=None)",
        "GaussianDiffusion.p_sample": f"{STEP}, cond_fn=None, model_kwargs=None)",
        "GaussianDiffusion.p_sample_loop": f"{LOOP}, real_step=0)",
        "GaussianDiffusion.p_sample_loop_progressive": f"{LOOP}, real_step=0)",
        "GaussianDiffusion.ddim_sample": f"{STEP}, cond_fn=None, model_kwargs=None, eta=0.0)",
        "GaussianDiffusion.ddim_sample_loop": f"{LOOP}, eta=0.0, return_intermediate=False, real_step=0)",
        "GaussianDiffusion.ddim_sample_loop_progressive": f"{LOOP}, eta=0.0, real_step=0)",
        "GaussianDiffusion.ddim_reverse_sample": f"{STEP}, model_kwargs=None, eta=0.0)",
        "GaussianDiffusion.ddim_reverse_sample_loop": f"{LOOP}, eta=0.0, real_step=0)",
        "GaussianDiffusion.ddim_reverse_sample_loop_progressive": f"{LOOP}, eta=0.0, real_step=0)",
        "GaussianDiffusion.training_losses": "(self, model, x_start, t, model_kwargs=None, noise=None)",
        "GaussianDiffusion.calc_bpd_loop": "(self, model, x_start, clip_denoised=True, model_kwargs=None)",
        "GaussianDiffusion._vb_terms_bpd": "(self, model, x_start, x_t, t, clip_denoised=True, model_kwargs=None)",
        "GaussianDiffusion._prior_bpd": "(self, x_start)",
        "GaussianDiffusion._predict_xstart_from_eps": "(self, x_t, t, eps)",
        "GaussianDiffusion._predict_xstart_from_xprev": "(self, x_t, t, xprev)",
        "GaussianDiffusion._predict_eps_from_xstart": "(self, x_t, t, pred_xstart)",
        "GaussianDiffusion._scale_timesteps": "(self, t)",
    },
    "respace": {
        "space_timesteps": "(num_timesteps, section_counts)",
        "SpacedDiffusion.__init__": "(self, use_timesteps, **kwargs)",
        "_WrappedModel.__init__": "(self, model, timestep_map, rescale_timesteps, original_num_steps)",
        "_WrappedModel.__call__": "(self, x, ts, **kwargs)",
    },
    "unet": {
        "UNetModel.__init__": f"{TRUNK}, num_classes=None, {HEADS})",
        "UNetModel.forward": "(self, x, timesteps, y=None)",
        "UNetModel.convert_to_fp16": "(self)",
        "UNetModel.convert_to_fp32": "(self)",
        "SuperResModel.__init__": "(self, image_size, in_channels, *args, **kwargs)",
        "SuperResModel.forward": "(self, x, timesteps, low_res=None, **kwargs)",
        "EncoderUNetModel.__init__": f"{TRUNK}, {HEADS}, pool='adaptive')",
        "EncoderUNetModel.forward": "(self, x, timesteps)",
        "ResBlock.__init__": (
            "(self, channels, emb_channels, dropout, out_channels=None, use_conv=False, use_scale_shift_norm=False, "
            "dims=2, use_checkpoint=False, up=False, down=False)"
        ),
        "ResBlock.forward": "(self, x, emb)",
        "AttentionBlock.__init__": (
            "(self, channels, num_heads=1, num_head_channels=-1, use_checkpoint=False, use_new_attention_order=False)"
        ),
        "AttentionPool2d.__init__": "(self, spacial_dim, embed_dim, num_heads_channels, output_dim=None)",
        "Upsample.__init__": "(self, channels, use_conv, dims=2, out_channels=None)",
        "Downsample.__init__": "(self, channels, use_conv, dims=2, out_channels=None)",
        "QKVAttention.__init__": "(self, n_heads)",
        "QKVAttentionLegacy.__init__": "(self, n_heads)",
        "TimestepBlock.forward": "(self, x, emb)",
        "TimestepEmbedSequential.forward": "(self, x, emb)",
    },
    "nn": {
        "conv_nd": "(dims, *args, **kwargs)",
        "linear": "(*args, **kwargs)",
        "avg_pool_nd": "(dims, *args, **kwargs)",
        "update_ema": "(target_params, source_params, rate=0.99)",
        "zero_module": "(module)",
        "scale_module": "(module, scale)",
        "mean_flat": "(tensor)",
        "normalization": "(channels)",
        "timestep_embedding": "(timesteps, dim, max_period=10000)",
        "checkpoint": "(func, inputs, params, flag)",
    },
    "losses": {
        "normal_kl": "(mean1, logvar1, mean2, logvar2)",
        "approx_standard_normal_cdf": "(x)",
        "discretized_gaussian_log_likelihood": "(x, *, means, log_scales)",
    },
    "resample": {
        "create_named_schedule_sampler": "(name, diffusion)",
        "ScheduleSampler.weights": "(self)",
        "ScheduleSampler.sample": "(self, batch_size, device)",
        "UniformSampler.__init__": "(self, diffusion)",
        "LossAwareSampler.update_with_local_losses": "(self, local_ts, local_losses)",
        "LossAwareSampler.update_with_all_losses": "(self, ts, losses)",
        "LossSecondMomentResampler.__init__": "(self, diffusion, history_per_term=10, uniform_prob=0.001)",
    },
    "script_util": {
        "create_model": (
            "(image_size, num_channels, num_res_blocks, channel_mult='', learn_sigma=False, class_cond=False, "
            "use_checkpoint=False, attention_resolutions='16', num_heads=1, num_head_channels=-1, "
            "num_heads_upsample=-1, use_scale_shift_norm=False, dropout=0, resblock_updown=False, use_fp16=False, "
            "use_new_attention_order=False)"
        ),
        "create_model_and_diffusion": (
            "(image_size, class_cond, learn_sigma, num_channels, num_res_blocks, channel_mult, num_heads, "
            f"num_head_channels, num_heads_upsample, attention_resolutions, dropout, {DIFFUSION_FLAGS}, "
            "use_checkpoint, use_scale_shift_norm, resblock_updown, use_fp16, use_new_attention_order)"
        ),
        "create_classifier": f"({CLASSIFIER_FLAGS})",
        "create_classifier_and_diffusion": f"({CLASSIFIER_FLAGS}, learn_sigma, {DIFFUSION_FLAGS})",
        "sr_create_model": (
            "(large_size, small_size, num_channels, num_res_blocks, learn_sigma, class_cond, use_checkpoint, "
            "attention_resolutions, num_heads, num_head_channels, num_heads_upsample, use_scale_shift_norm, dropout, "
            "resblock_updown, use_fp16)"
        ),
        "sr_create_model_and_diffusion": (
            "(large_size, small_size, class_cond, learn_sigma, num_channels, num_res_blocks, num_heads, "
            f"num_head_channels, num_heads_upsample, attention_resolutions, dropout, {DIFFUSION_FLAGS}, "
            "use_checkpoint, use_scale_shift_norm, resblock_updown, use_fp16)"
        ),
        "create_gaussian_diffusion": (
            "(*, steps=1000, learn_sigma=False, sigma_small=False, noise_schedule='linear', use_kl=False, "
            "predict_xstart=False, rescale_timesteps=False, rescale_learned_sigmas=False, timestep_respacing='')"
        ),
        "add_dict_to_argparser": "(parser, default_dict)",
        "args_to_dict": "(args, keys)",
        "str2bool": "(v)",
    },
    "dist_util": {
        "setup_dist": "(devices='')",
        "dev": "()",
        "load_state_dict": "(path, **kwargs)",
        "sync_params": "(params)",
    },
    "logger": {
        "configure": "(dir=None, format_strs=None, comm=None, log_suffix='')",
        "log": "(*args, level=20)",
        "logkv": "(key, val)",
        "logkv_mean": "(key, val)",
        "dumpkvs": "()",
        "make_output_format": "(format, ev_dir, log_suffix='')",
        "Logger.__init__": "(self, dir, output_formats, comm=None)",
    },
    "image_datasets": {
        "load_data": (
            "(*, data_dir, batch_size, image_size, class_cond=False, deterministic=False, random_crop=False, "
            "random_flip=True)"
        ),
        "load_data_for_reverse": (
            "(*, data_dir, batch_size, image_size, class_cond=False, deterministic=True, random_crop=False, "
            "random_flip=False)"
        ),
        "center_crop_arr": "(pil_image, image_size)",
        "random_crop_arr": "(pil_image, image_size, min_crop_frac=0.8, max_crop_frac=1.0)",
    },
    "fp16_util": {
        "MixedPrecisionTrainer.__init__": (
            "(self, *, model, use_fp16=False, fp16_scale_growth=0.001, initial_lg_loss_scale=20.0)"
        ),
        "MixedPrecisionTrainer.optimize": "(self, opt)",
        "master_params_to_state_dict": "(model, param_groups_and_shapes, master_params, use_fp16)",
        "state_dict_to_master_params": "(model, state_dict, use_fp16)",
    },
    "train_util": {
        "TrainLoop.__init__": (
            "(self, *, model, diffusion, data, batch_size, microbatch, lr, ema_rate, log_interval, save_interval, "
            "resume_checkpoint, use_fp16=False, fp16_scale_growth=0.001, schedule_sampler=None, weight_decay=0.0, "
            "lr_anneal_steps=0)"
        ),
        "TrainLoop.run_step": "(self, batch, cond)",
        "parse_resume_step_from_filename": "(filename)",
        "find_ema_checkpoint": "(main_checkpoint, step, rate)",
        "log_loss_dict": "(diffusion, ts, losses)",
    },
}


@pytest.mark.parametrize(
    ("module", "name", "signature"),
    [(module, name, text) for module, names in SIGNATURES.items() for name, text in names.items()],
)
def test_signature_is_the_old_one(module: str, name: str, signature: str) -> None:
    found: Any = importlib.import_module(f"rediffuse.compat.guided_diffusion.{module}")
    for part in name.split("."):
        found = getattr(found, part)
    assert _untyped(found) == signature


@pytest.mark.parametrize(
    ("enum", "members"),
    [
        ("ModelMeanType", ["PREVIOUS_X", "START_X", "EPSILON"]),
        ("ModelVarType", ["LEARNED", "FIXED_SMALL", "FIXED_LARGE", "LEARNED_RANGE"]),
        ("LossType", ["MSE", "RESCALED_MSE", "KL", "RESCALED_KL"]),
    ],
)
def test_enum_has_the_old_members(enum: str, members: list[str]) -> None:
    module = importlib.import_module("rediffuse.compat.guided_diffusion.gaussian_diffusion")
    assert [member.name for member in getattr(module, enum)] == members


def _untyped(function: Any) -> str:
    """The signature without its type hints."""
    bare = inspect.Signature.empty
    signature = inspect.signature(function)
    parameters = [parameter.replace(annotation=bare) for parameter in signature.parameters.values()]
    return str(signature.replace(parameters=parameters, return_annotation=bare))
