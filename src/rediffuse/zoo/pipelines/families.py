"""The families of pipelines: which parts they need, and how their networks are called."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rediffuse.errors import ConfigError, nearest
from rediffuse.zoo.pipelines.autoencoder import Autoencoder

Conditioning = Mapping[str, Tensor]
"""What a prompt becomes: tensors (1, ...) by name."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """The pipelines with one class of network."""

    network: tuple[str, ...]
    """The class of the network in diffusers, and its earlier names."""
    call: Callable[[Any, Tensor, Tensor, Tensor | None, Conditioning], Tensor]
    """(network, x_t (N, C, S, S), timesteps (N,), y (N,), conditioning with N rows) -> prediction."""
    needs: tuple[str, ...] = ()
    """The parts beside the network and the scheduler."""
    num_classes: Callable[[Any], int | None] = lambda config: None
    """From the configuration of the network."""
    pipeline: str | None = None
    """The pipeline in diffusers that encodes prompts; None without prompts."""
    encode: Callable[[Any, str | None, torch.device, int], Conditioning] | None = None
    """(pipeline, prompt, device, side of the image) -> conditioning; no prompt (None) is that of guidance."""
    has_null_class: bool = False
    """Whether class `num_classes` means no class, for guidance."""
    packing: int = 1
    """The side of the squares of a latent that the pipeline makes one token of the network's input."""
    has_levels: bool = False
    """Whether the pipeline, and not its scheduler, chooses the levels of N steps of a flow: N/N, ..., 1/N, before their
    shift."""

    def shape(self, config: Any, autoencoder: Autoencoder | None) -> tuple[int, Any]:
        """Channels and side of x_t, from the configuration of the network; the side may be None or no number."""
        side = config.get("sample_size") or (autoencoder and autoencoder.side)
        return config.in_channels // self.packing**2, side

    def num_tokens(self, config: Any, side: int) -> int:
        """The length of the sequence that a transformer makes of an x_t with this side."""
        return (side // (self.packing * (config.get("patch_size") or 1))) ** 2


def family_of(network: Any) -> Family:
    """The family of a network of diffusers.

    Raises:
        ConfigError: the class of the network is not known; names those that are.
    """
    name = type(network).__name__
    known = [kind for family in FAMILIES for kind in family.network]
    if name not in known:
        raise ConfigError(f"{name}: not a known network; {', '.join(known)} are known{nearest(name, known)}")
    [family] = [one for one in FAMILIES if name in one.network and _fits(one, network.config)]
    return family


def _fits(family: Family, config: Any) -> bool:
    """Of the two families of `UNet2DConditionModel`: SDXL has embeddings of sizes."""
    is_xl = config.get("addition_embed_type") == "text_time"
    return family.network[0] != "UNet2DConditionModel" or is_xl == (family.pipeline == "StableDiffusionXLPipeline")


def _num_classes(config: Any) -> int | None:
    """The number of classes of a U-Net."""
    if config.class_embed_type is not None:
        raise ConfigError(f"class_embed_type={config.class_embed_type}: only an embedding (None) is known")
    return config.num_class_embeds


def _unet(network: Any, x_t: Tensor, timesteps: Tensor, y: Tensor | None, given: Conditioning) -> Tensor:
    return network(x_t, timesteps, class_labels=y).sample


def _dit(network: Any, x_t: Tensor, timesteps: Tensor, y: Tensor | None, given: Conditioning) -> Tensor:
    return network(x_t, timestep=timesteps, class_labels=y).sample


def _text(network: Any, x_t: Tensor, timesteps: Tensor, y: Tensor | None, given: Conditioning) -> Tensor:
    return network(x_t, timesteps, encoder_hidden_states=given["prompt"]).sample


def _encode_text(pipeline: Any, prompt: str | None, device: torch.device, side: int) -> Conditioning:
    embeds, _ = pipeline.encode_prompt(prompt or "", device, 1, False)
    return {"prompt": embeds}


def _text_xl(network: Any, x_t: Tensor, timesteps: Tensor, y: Tensor | None, given: Conditioning) -> Tensor:
    added = {"text_embeds": given["pooled"], "time_ids": given["sizes"]}
    return network(x_t, timesteps, encoder_hidden_states=given["prompt"], added_cond_kwargs=added).sample


def _encode_text_xl(pipeline: Any, prompt: str | None, device: torch.device, side: int) -> Conditioning:
    embeds, _, pooled, _ = pipeline.encode_prompt(prompt or "", device=device, do_classifier_free_guidance=False)
    if prompt is None and pipeline.config.force_zeros_for_empty_prompt:
        embeds, pooled = torch.zeros_like(embeds), torch.zeros_like(pooled)
    # SDXL (arXiv:2307.01952), Sec. 2.2: size of the original image, first row and column of the crop, size of the image
    sizes = torch.tensor([[side, side, 0, 0, side, side]], dtype=embeds.dtype, device=device)
    return {"prompt": embeds, "pooled": pooled, "sizes": sizes}


def _sd3(network: Any, x_t: Tensor, timesteps: Tensor, y: Tensor | None, given: Conditioning) -> Tensor:
    return network(
        x_t, timestep=timesteps, encoder_hidden_states=given["prompt"], pooled_projections=given["pooled"]
    ).sample


def _encode_sd3(pipeline: Any, prompt: str | None, device: torch.device, side: int) -> Conditioning:
    embeds, _, pooled, _ = pipeline.encode_prompt(
        prompt or "", None, None, device=device, do_classifier_free_guidance=False
    )
    return {"prompt": embeds, "pooled": pooled}


def _flux(network: Any, x_t: Tensor, timesteps: Tensor, y: Tensor | None, given: Conditioning) -> Tensor:
    packed = F.pixel_unshuffle(x_t, 2)  # (N, 4C, S/2, S/2)
    rows, columns = (torch.arange(side, device=x_t.device) for side in packed.shape[2:])
    places = torch.cartesian_prod(torch.zeros_like(rows[:1]), rows, columns)  # (tokens, 3)
    output = network(
        packed.flatten(2).transpose(1, 2),
        encoder_hidden_states=given["prompt"],
        pooled_projections=given["pooled"],
        timestep=timesteps / 1000,
        guidance=given.get("guidance"),
        txt_ids=places.new_zeros(given["prompt"].shape[1], 3),
        img_ids=places,
    ).sample  # (N, tokens, 4C)
    return F.pixel_shuffle(output.transpose(1, 2).unflatten(2, packed.shape[2:]), 2)


def _encode_flux(pipeline: Any, prompt: str | None, device: torch.device, side: int) -> Conditioning:
    embeds, pooled, _ = pipeline.encode_prompt(prompt or "", None, device=device)
    return {"prompt": embeds, "pooled": pooled}


def _none(network: Any, x_t: Tensor, timesteps: Tensor, y: Tensor | None, given: Conditioning) -> Tensor:
    raise AssertionError("an autoencoder alone has no denoising network")


_TWO_ENCODERS = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")

AUTOENCODERS = Family(network=("AutoencoderKL", "VQModel"), call=_none)
"""Autoencoders without a diffusion model."""

FAMILIES = (
    Family(network=("UNet2DModel",), call=_unet, num_classes=_num_classes),
    Family(
        network=("DiTTransformer2DModel", "Transformer2DModel"),
        call=_dit,
        needs=("vae",),
        num_classes=lambda config: config.num_embeds_ada_norm,
        has_null_class=True,
    ),
    Family(
        network=("UNet2DConditionModel",),
        call=_text,
        num_classes=_num_classes,
        needs=("vae", "text_encoder", "tokenizer"),
        pipeline="StableDiffusionPipeline",
        encode=_encode_text,
    ),
    Family(
        network=("UNet2DConditionModel",),
        call=_text_xl,
        num_classes=_num_classes,
        needs=("vae", *_TWO_ENCODERS),
        pipeline="StableDiffusionXLPipeline",
        encode=_encode_text_xl,
    ),
    Family(
        network=("SD3Transformer2DModel",),
        call=_sd3,
        needs=("vae", *_TWO_ENCODERS),
        pipeline="StableDiffusion3Pipeline",
        encode=_encode_sd3,
    ),
    Family(
        network=("FluxTransformer2DModel",),
        call=_flux,
        needs=("vae", *_TWO_ENCODERS),
        pipeline="FluxPipeline",
        encode=_encode_flux,
        packing=2,
        has_levels=True,
    ),
)
