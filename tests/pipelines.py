"""Small pipelines of diffusers with random weights, made from its own classes."""

import contextlib
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.vq_model import VQModel
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
from diffusers.pipelines.deprecated.latent_diffusion_uncond.pipeline_latent_diffusion_uncond import LDMPipeline
from diffusers.pipelines.dit.pipeline_dit import DiTPipeline
from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

SIDE = 16


def pixel(scheduler: Any = None, **options: Any) -> DDPMPipeline:
    """A pipeline of images, (3, 16, 16)."""
    fields = {
        "sample_size": SIDE,
        "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "attention_head_dim": 8,
    }
    with seeded():
        unet = UNet2DModel(**(fields | options))
    return DDPMPipeline(unet=unet, scheduler=scheduler or DDPMScheduler())


def ddim(**options: Any) -> DDIMScheduler:
    """A scheduler with rediffuse's conventions: the last step ends at the clean image, and x_0 is not clipped."""
    return DDIMScheduler(**({"clip_sample": False, "set_alpha_to_one": True} | options))


@contextlib.contextmanager
def seeded() -> Any:
    """Weights that are the same in every test."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def text_encoder(kind: type = CLIPTextModel) -> Any:
    """A text model of two layers, 8 numbers per token."""
    vocabulary = tokenizer().get_vocab()
    config = CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=8,
        intermediate_size=16,
        projection_dim=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=8,
        bos_token_id=vocabulary["<|startoftext|>"],
        eos_token_id=vocabulary["<|endoftext|>"],
        pad_token_id=vocabulary["<|endoftext|>"],
    )
    with seeded():
        return kind(config).eval()


def tokenizer() -> CLIPTokenizer:
    """Letters as tokens, at most 8 in a prompt."""
    letters = [*"abcdef", *(f"{letter}</w>" for letter in "abcdef"), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(letters)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=8)


def autoencoder(**options: Any) -> AutoencoderKL:
    """Images of 16 px to latents (4, 8, 8)."""
    with seeded():
        return AutoencoderKL(
            **{
                "sample_size": SIDE,
                "block_out_channels": (8, 8),
                "down_block_types": ("DownEncoderBlock2D",) * 2,
                "up_block_types": ("UpDecoderBlock2D",) * 2,
                "latent_channels": 4,
                "norm_num_groups": 4,
                "scaling_factor": 0.5,
                **options,
            }
        ).eval()


def text_unet(**options: Any) -> UNet2DConditionModel:
    with seeded():
        return UNet2DConditionModel(
            **{
                "sample_size": 8,
                "block_out_channels": (8, 16),
                "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
                "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
                "layers_per_block": 1,
                "norm_num_groups": 4,
                "attention_head_dim": 2,
                "cross_attention_dim": 8,
                **options,
            }
        ).eval()


def stable_diffusion(scheduler: Any = None) -> StableDiffusionPipeline:
    """The form of Stable Diffusion 1 and 2."""
    return StableDiffusionPipeline(
        vae=autoencoder(),
        text_encoder=text_encoder(),
        tokenizer=tokenizer(),
        unet=text_unet(),
        scheduler=scheduler or ddim(steps_offset=1),
        safety_checker=None,
        feature_extractor=None,  # type: ignore[arg-type]
        requires_safety_checker=False,
    )


def sdxl() -> StableDiffusionXLPipeline:
    return StableDiffusionXLPipeline(
        vae=autoencoder(),
        text_encoder=text_encoder(),
        text_encoder_2=text_encoder(CLIPTextModelWithProjection),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        unet=text_unet(
            cross_attention_dim=16,
            addition_embed_type="text_time",
            addition_time_embed_dim=4,
            projection_class_embeddings_input_dim=8 + 6 * 4,
            use_linear_projection=True,
        ),
        scheduler=ddim(steps_offset=1),
        add_watermarker=False,
    )


def sd3(**options: Any) -> StableDiffusion3Pipeline:
    """The form of Stable Diffusion 3, without its largest text encoder; the options are those of its scheduler."""
    with seeded():
        transformer = SD3Transformer2DModel(
            sample_size=8,
            patch_size=1,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=32,
            caption_projection_dim=16,
            pooled_projection_dim=16,
        ).eval()
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(**({"shift": 3.0} | options)),
        vae=autoencoder(shift_factor=0.1),
        text_encoder=text_encoder(CLIPTextModelWithProjection),
        text_encoder_2=text_encoder(CLIPTextModelWithProjection),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        text_encoder_3=None,  # type: ignore[arg-type]
        tokenizer_3=None,  # type: ignore[arg-type]
    )


def dit() -> DiTPipeline:
    """A class-conditional transformer, which also predicts a variance."""
    with seeded():
        transformer = DiTTransformer2DModel(
            sample_size=8,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            in_channels=4,
            out_channels=8,
            num_embeds_ada_norm=1000,
        ).eval()
        for parameter in transformer.proj_out_2.parameters():
            nn.init.normal_(parameter, std=0.1)
    return DiTPipeline(transformer=transformer, vae=autoencoder(), scheduler=ddim())


def flux(*, is_distilled: bool = True) -> FluxPipeline:
    """The form of FLUX.1: packed latents, two text encoders; if distilled, with guidance and levels by the size."""
    with seeded():
        transformer = FluxTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=8,
            pooled_projection_dim=8,
            guidance_embeds=is_distilled,
            axes_dims_rope=(4, 6, 6),
        ).eval()
        text = T5EncoderModel(T5Config(vocab_size=10, d_model=8, d_kv=4, d_ff=16, num_layers=2, num_heads=2)).eval()
    letters = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -5.0), ("▁", -2.0), *((letter, -1.0) for letter in "abcdef")]
    return FluxPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=is_distilled, shift=3.0 if is_distilled else 1.0
        ),
        vae=autoencoder(shift_factor=0.1),
        text_encoder=text_encoder(),
        text_encoder_2=text,
        tokenizer=tokenizer(),
        tokenizer_2=T5TokenizerFast(vocab=letters, extra_ids=0),
    )


def quantised(**options: Any) -> VQModel:
    """Images of 16 px to latents (4, 8, 8), of which each column is replaced by the nearest of 16."""
    with seeded():
        return VQModel(
            **{
                "sample_size": SIDE,
                "block_out_channels": (8, 8),
                "down_block_types": ("DownEncoderBlock2D",) * 2,
                "up_block_types": ("UpDecoderBlock2D",) * 2,
                "latent_channels": 4,
                "num_vq_embeddings": 16,
                "norm_num_groups": 4,
                "scaling_factor": 0.5,
                **options,
            }
        ).eval()


def ldm() -> LDMPipeline:
    """The form of the latent diffusion models without prompts, such as that of CelebA-HQ."""
    unet = pixel(sample_size=8, in_channels=4, out_channels=4).unet
    return LDMPipeline(vqvae=quantised(), unet=unet.eval(), scheduler=ddim())
