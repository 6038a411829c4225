"""Operations and time for the reconstruction of one image by families of pipelines, without their weights.

Networks of the published configurations are built on the meta device, and their operations are counted. The rate of the
machine is that of a small U-Net of the same kind of layers, in processor time of one core, so that other programs
change it little.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import diffusers
import torch
from diffusers import (
    AutoencoderKL,
    DiTTransformer2DModel,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
    UNet2DModel,
    VQModel,
)
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

PIXELS, LDM = "google/ddpm-cat-256", "CompVis/ldm-celebahq-256"
CALLS = 10
"""Network calls of --depth 5: five steps of the inversion, and five of sampling."""


def main() -> None:
    print(f"torch {torch.__version__}, diffusers {diffusers.__version__}, one core")
    rate = measured_rate()
    print(f"measured rate: {rate / 1e9:.1f} G operations per second\n")
    print("| family | size | parameters | per call | autoencoder | reconstruction | autoencoder alone |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with torch.device("meta"):
        for name, side, network, call in families():
            each = operations(lambda network=network, call=call: call(network))
            autoencoder = operations(lambda side=side, name=name: through(name, side))
            size = f"{sum(parameter.numel() for parameter in network.parameters()) / 1e6:,.0f} M"
            total = CALLS * each + autoencoder
            alone = f"{autoencoder / rate:,.0f} s" if autoencoder else "-"
            cells = [name, f"{side} px", size, tera(each), tera(autoencoder), f"{tera(total)}, {total / rate:,.0f} s"]
            print(f"| {' | '.join([*cells, alone])} |")


def families() -> Iterator[tuple[str, int, nn.Module, Callable[[Any], object]]]:
    """Name, side of the image, network, and a call of it."""
    down, up = ["DownBlock2D"] * 6, ["UpBlock2D"] * 6
    down[4], up[1] = "AttnDownBlock2D", "AttnUpBlock2D"
    pixel = UNet2DModel(
        sample_size=256,
        block_out_channels=(128, 128, 256, 256, 512, 512),
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        attention_head_dim=None,
    )
    yield PIXELS, 256, pixel, lambda network: network(torch.empty(1, 3, 256, 256), 1)
    yield "Stable Diffusion 1.5", 512, UNet2DConditionModel(cross_attention_dim=768), text(64, 768)
    two = UNet2DConditionModel(cross_attention_dim=1024, attention_head_dim=(5, 10, 20, 20), use_linear_projection=True)
    yield "Stable Diffusion 2.1", 768, two, text(96, 1024)
    xl = UNet2DConditionModel(
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )
    added = {"text_embeds": torch.empty(1, 1280), "time_ids": torch.empty(1, 6)}
    yield "Stable Diffusion XL", 1024, xl, text(128, 2048, added_cond_kwargs=added)
    sd3 = SD3Transformer2DModel(
        num_layers=24, num_attention_heads=24, caption_projection_dim=1536, pos_embed_max_size=192
    )
    yield (
        "Stable Diffusion 3 medium",
        1024,
        sd3,
        lambda network: network(
            torch.empty(1, 16, 128, 128),
            encoder_hidden_states=torch.empty(1, 333, 4096),
            pooled_projections=torch.empty(1, 2048),
            timestep=torch.empty(1),
        ),
    )
    yield (
        "DiT-XL/2",
        256,
        DiTTransformer2DModel(),
        lambda network: network(
            torch.empty(1, 4, 32, 32),
            timestep=torch.empty(1, dtype=torch.long),
            class_labels=torch.empty(1, dtype=torch.long),
        ),
    )
    ldm = UNet2DModel(
        sample_size=64,
        in_channels=3,
        out_channels=3,
        block_out_channels=(224, 448, 672, 896),
        down_block_types=("DownBlock2D", *["AttnDownBlock2D"] * 3),
        up_block_types=(*["AttnUpBlock2D"] * 3, "UpBlock2D"),
        attention_head_dim=32,
    )
    yield LDM, 256, ldm, lambda network: network(torch.empty(1, 3, 64, 64), 1)
    flux = FluxTransformer2DModel(guidance_embeds=True)
    yield (
        "FLUX.1 dev",
        1024,
        flux,
        lambda network: network(
            torch.empty(1, 4096, 64),
            encoder_hidden_states=torch.empty(1, 512, 4096),
            pooled_projections=torch.empty(1, 768),
            timestep=torch.empty(1),
            guidance=torch.empty(1),
            txt_ids=torch.empty(512, 3),
            img_ids=torch.empty(4096, 3),
        ),
    )


def text(side: int, width: int, **conditioning: dict[str, Tensor]) -> Callable[[Any], object]:
    """A call of a U-Net with a prompt of 77 tokens."""
    prompt = torch.empty(1, 77, width)
    return lambda network: network(torch.empty(1, 4, side, side), 1, encoder_hidden_states=prompt, **conditioning)


def vae(name: str) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=16 if name.startswith(("Stable Diffusion 3", "FLUX")) else 4,
    )


def through(name: str, side: int) -> None:
    """Encode and decode an image with the autoencoder of a family; nothing for a family without one."""
    images = torch.empty(1, 3, side, side)
    if name == LDM:
        autoencoder = VQModel(
            block_out_channels=(128, 256, 512),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            layers_per_block=2,
            num_vq_embeddings=8192,
        )
        autoencoder.decode(autoencoder.encode(images).latents, force_not_quantize=True)
    elif name != PIXELS:
        autoencoder = vae(name)
        autoencoder.decode(autoencoder.encode(images).latent_dist.mean)


def operations(function: Callable[[], object]) -> int:
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        function()
    return counter.get_total_flops()


def measured_rate() -> float:
    """Operations per second of one core: the best of five calls of a small U-Net."""
    torch.set_num_threads(1)
    network = UNet2DModel(
        sample_size=64,
        block_out_channels=(128, 256),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    ).eval()
    x = torch.randn(1, 3, 64, 64)
    times = []
    with torch.no_grad():
        for _ in range(5):
            begin = time.process_time()
            network(x, 1)
            times.append(time.process_time() - begin)
    return operations(lambda: network(x, 1)) / min(times)


def tera(count: int) -> str:
    return f"{count / 1e12:.2f} T" if count else "-"


if __name__ == "__main__":
    main()
