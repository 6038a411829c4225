"""Latent pipelines of diffusers as models: latents, prompts and guidance are those of diffusers' own pipelines."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.pipelines.flux.pipeline_flux import FluxPipeline, calculate_shift
from torch import Tensor, nn

import pipelines
import rediffuse
from lpips_weights import write_lpips
from rediffuse.detection.features import FEATURES
from rediffuse.diffusion import trajectory
from rediffuse.diffusion.process import SamplerOptions
from rediffuse.dire.job import reconstruct_files
from rediffuse.dire.reconstruct import network_calls
from rediffuse.errors import ConfigError
from rediffuse.images.find import find_images
from rediffuse.models.lpips import read_lpips
from rediffuse.records import digest
from rediffuse.zoo.pipelines.networks import PipelineNetwork
from rediffuse.zoo.pipelines.scheduler import SchedulerProcess

STEPS = 3
UNCLIPPED = SamplerOptions(clip_denoised=False)
TEXT = {
    "sd": pipelines.stable_diffusion,
    "sd2": lambda: pipelines.stable_diffusion(pipelines.ddim(steps_offset=1, prediction_type="v_prediction")),
    "sdxl": pipelines.sdxl,
    "sd3": pipelines.sd3,
    "sd3_shifted_by_size": partial(pipelines.sd3, use_dynamic_shifting=True, base_image_seq_len=32),
    "flux": pipelines.flux,
    "flux_schnell": partial(pipelines.flux, is_distilled=False),
}


@pytest.fixture(scope="module", params=TEXT)
def pipeline(request: pytest.FixtureRequest) -> Any:
    made = TEXT[request.param]()
    made.set_progress_bar_config(disable=True)
    return made


def images(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


def noise(count: int = 2) -> Tensor:
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(2))


def close(given: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-5 * max(1.0, expected.abs().max().item()))


@torch.no_grad()
def theirs(pipeline: Any, prompt: str, scale: float) -> list[Tensor]:
    """The latents after every step of the pipeline."""
    latents: list[Tensor] = []

    def keep(_: Any, step: int, timestep: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        latents.append(tensors["latents"])
        return {}

    options: dict[str, Any] = {"latents": noise(), "guidance_scale": scale}
    if isinstance(pipeline, FluxPipeline):
        options |= {"latents": pipeline._pack_latents(noise(), 2, 4, 8, 8), "height": 16, "width": 16}
        if not pipeline.transformer.config.guidance_embeds:
            options |= {"true_cfg_scale": scale, "negative_prompt": [""] * 2}
    pipeline([prompt] * 2, num_inference_steps=STEPS, output_type="latent", callback_on_step_end=keep, **options)
    if isinstance(pipeline, FluxPipeline):
        return [pipeline._unpack_latents(z, 16, 16, pipeline.vae_scale_factor) for z in latents]
    return latents


@pytest.mark.parametrize(("prompt", "scale"), [("", 1.0), ("abc", 1.0), ("abc", 3.0)])
def test_sampling_under_a_prompt_is_that_of_the_pipeline(pipeline: Any, prompt: str, scale: float) -> None:
    model = rediffuse.load(pipeline)
    settings = rediffuse.SamplingSettings(steps=STEPS, prompt=prompt, guidance_scale=scale)
    process = model.process(settings.respacing)
    with torch.no_grad():
        ours = [step.x for step in trajectory.sample("ddim", process, model.denoiser(settings), noise(), UNCLIPPED)]
    norms = [1.0] * STEPS
    if model.process_config.prediction == "flow":  # x of a flow is x_t of rediffuse, times this norm
        s = [*(process.schedule.timesteps[-2::-1] / 1000), 0.0]  # where the steps end
        norms = [math.hypot(1 - level, level) for level in s]
    for x, norm, z in zip(ours, norms, theirs(pipeline, prompt, scale), strict=True):
        close(x * norm, z)


def test_a_class_and_guidance_by_it_are_those_of_the_pipeline() -> None:
    pipeline = pipelines.dit()
    pipeline.set_progress_bar_config(disable=True)
    model = rediffuse.load(pipeline)
    assert model.num_classes == 1000
    settings = rediffuse.SamplingSettings(steps=STEPS, guidance_scale=3)
    x_T = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    ours = rediffuse.decode(model, x_T, settings, labels=[3, 7])
    theirs = pipeline([3, 7], guidance_scale=3, num_inference_steps=STEPS, generator=torch.Generator().manual_seed(0))
    pixels = torch.stack([rediffuse.read_image(image, size=16)[0] for image in theirs.images])
    assert (ours - pixels).abs().max() <= 1 / 127.5


def test_latents_are_the_scaled_means_of_the_posterior() -> None:
    vae = pipelines.autoencoder(shift_factor=0.1)
    pipeline = pipelines.sd3()
    model = rediffuse.load(pipeline)
    with torch.no_grad():
        z = (vae.encode(images()).latent_dist.mean - 0.1) * 0.5
        decoded = vae.decode(z / 0.5 + 0.1).sample
    close(model.encode(images()), z)
    close(model.decode(z, clip=False), decoded)
    assert model.image_size == 16


def test_a_flow_whose_shift_has_one_length_instead_of_two_is_refused() -> None:
    pipeline = pipelines.sd3(use_dynamic_shifting=True, base_image_seq_len=64, max_image_seq_len=64)
    with pytest.raises(ConfigError, match="base_image_seq_len and max_image_seq_len are both 64; they must differ"):
        rediffuse.load(pipeline)


def test_the_levels_of_a_flow_shift_with_the_length_of_its_sequence() -> None:
    shifts = []
    for side in (8, 16):
        pipeline = pipelines.sd3(use_dynamic_shifting=True)
        pipeline.transformer.register_to_config(sample_size=side)
        config = rediffuse.load(pipeline).process_config
        assert isinstance(config, SchedulerProcess)
        shifts.append((side * side, config.shift))
    assert shifts == [(64, pytest.approx(calculate_shift(64))), (256, pytest.approx(calculate_shift(256)))]


def test_guidance_that_a_network_embeds_needs_no_further_calls() -> None:
    calls = []
    for pipeline in (pipelines.flux(), pipelines.flux(is_distilled=False)):
        model = rediffuse.load(pipeline)
        for scale in (1, 3.5):
            settings = rediffuse.DireSettings.for_model(model, steps=STEPS, grid="aligned", guidance_scale=scale)
            calls.append(network_calls(model, settings))
    assert calls == [2 * STEPS, 2 * STEPS, 2 * STEPS, 4 * STEPS]


def test_a_latent_model_of_quantised_latents_is_that_of_the_pipeline() -> None:
    pipeline = pipelines.ldm()
    pipeline.set_progress_bar_config(disable=True)
    model = rediffuse.load(pipeline)
    assert (model.image_size, model.shape) == (16, (4, 8, 8))
    x_T = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    expected = pipeline(2, generator, num_inference_steps=STEPS, output_type="np").images
    ours = rediffuse.decode(model, x_T, rediffuse.SamplingSettings(steps=STEPS))
    close((ours + 1) / 2, torch.from_numpy(expected).permute(0, 3, 1, 2))
    with torch.no_grad():
        close(model.encode(images()), pipeline.vqvae.encode(images()).latents * 0.5)
    settings = rediffuse.DireSettings.for_model(model, steps=STEPS, depth=2)
    assert rediffuse.reconstruct(model, images(), settings).is_finite.all()


def test_a_reconstruction_holds_images_and_latents_and_both_errors(pipeline: Any) -> None:
    model = rediffuse.load(pipeline)
    settings = rediffuse.DireSettings.for_model(
        model, steps=STEPS, depth=2, grid="aligned", prompt="ab", second_view=True
    )
    made = rediffuse.reconstruct(model, images(), settings)
    assert made.x_0.shape == made.x_0_hat.shape == (2, 3, 16, 16)
    assert made.x_T.shape == (2, 4, 8, 8)
    assert made.z_0 is not None
    assert made.z_0_hat is not None
    assert made.latent_error is not None
    close(made.z_0, model.encode(images()))
    close(made.x_0_hat, model.decode(made.z_0_hat, clip=True))
    assert made.x_0_hat.abs().max() <= 1
    torch.testing.assert_close(made.latent_error, made.z_0 - made.z_0_hat)
    one = rediffuse.reconstruct(model, images()[1:], settings)
    for name, tensor in one.tensors.items():
        close(made[1:].tensors[name], tensor)
    half = rediffuse.DireSettings.for_model(model, steps=STEPS, depth=2, precision="bf16")
    assert rediffuse.reconstruct(model, images(), half).x_0_hat.dtype == torch.float32


def test_a_pipeline_object_in_half_precision_takes_and_gives_float32() -> None:
    pipeline = pipelines.stable_diffusion().to(dtype=torch.bfloat16)
    model = rediffuse.load(pipeline)
    settings = rediffuse.DireSettings.for_model(model, steps=STEPS, depth=1, prompt="a", guidance_scale=2)
    made = rediffuse.reconstruct(model, images(), settings)
    assert made.x_0_hat.dtype == made.x_T.dtype == torch.float32
    assert made.is_finite.all()


@pytest.mark.parametrize(
    ("part", "line"),
    [("vae", "the autoencoder is in float16; float32 may suffice"), ("unet", "the model is in float16; float32 may")],
)
def test_a_part_that_overflows_in_half_precision_is_named(part: str, line: str, tmp_path: Path) -> None:
    pipeline = pipelines.stable_diffusion()
    layer = pipeline.vae.decoder.conv_in if part == "vae" else pipeline.unet.conv_in
    torch.nn.init.constant_(layer.weight, 3e4)
    model = rediffuse.load(pipeline.to(dtype=torch.float16))
    settings = rediffuse.DireSettings.for_model(model, steps=STEPS, depth=1)
    rediffuse.write_image(tmp_path / "a.png", images(1))
    [result] = reconstruct_files(model, find_images([tmp_path]), settings, batch_size=1)
    assert line in str(result.reason)


def test_invert_encodes_and_decode_decodes() -> None:
    model = rediffuse.load(pipelines.stable_diffusion())
    settings = rediffuse.SamplingSettings(steps=STEPS)
    process, network = model.process(settings.respacing), model.denoiser(settings)
    x_T = rediffuse.invert(model, images(), settings)
    close(x_T, trajectory.last(trajectory.invert("ddim", process, network, model.encode(images()), UNCLIPPED)))
    z_0 = trajectory.last(trajectory.sample("ddim", process, network, x_T, UNCLIPPED))
    close(rediffuse.decode(model, x_T, settings), model.decode(z_0, clip=True))


class Straight(nn.Module):
    """A flow along straight lines: its velocity is the same everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.velocity = nn.Parameter(torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3)))

    def forward(self, x: Tensor, **_: object) -> SimpleNamespace:
        return SimpleNamespace(sample=self.velocity.expand(x.shape))


@pytest.mark.parametrize("sampler", ["ddim", "dpm_solver"])
def test_a_straight_flow_is_inverted_exactly(sampler: str) -> None:
    model = rediffuse.load(pipelines.sd3())
    straight = model.network.network = Straight()
    z_0, process = noise(), model.process(str(STEPS))
    network = model.denoiser(rediffuse.SamplingSettings())
    x_T = trajectory.last(trajectory.invert(sampler, process, network, z_0, UNCLIPPED))
    if sampler == "ddim":
        close(x_T, z_0 + straight.velocity)  # at s = 1
    returned = trajectory.last(trajectory.sample(sampler, process, network, z_0 + straight.velocity, UNCLIPPED))
    close(returned, z_0)


@pytest.mark.parametrize(
    ("autoencoder", "pipeline"),
    [(pipelines.autoencoder, pipelines.stable_diffusion), (pipelines.quantised, pipelines.ldm)],
)
def test_an_autoencoder_alone_encodes_and_decodes(
    autoencoder: Callable[[], Any], pipeline: Callable[[], Any], tmp_path: Path
) -> None:
    autoencoder().save_pretrained(tmp_path / "one")
    alone, whole = rediffuse.load(tmp_path / "one"), rediffuse.load(pipeline())
    assert alone.image_size == whole.image_size == 16
    for model in (alone, whole):
        settings = rediffuse.DireSettings.for_model(model, solver="autoencoder")
        made = rediffuse.reconstruct(model, images(), settings)
        close(made.x_0_hat, whole.decode(whole.encode(images()), clip=True))
        assert made.x_T.shape == (2, 4, 8, 8)
    with pytest.raises(ConfigError, match="autoencoders alone: only solver=autoencoder"):
        rediffuse.DireSettings.for_model(alone)
    with pytest.raises(ConfigError, match="autoencoders alone: only solver=autoencoder"):
        next(rediffuse.sample(alone, [0]))
    with pytest.raises(ConfigError, match="DDPMPipeline has no autoencoder; a latent model has"):
        rediffuse.DireSettings.for_model(rediffuse.load(pipelines.pixel()), solver="autoencoder")


def test_of_several_autoencoders_each_image_keeps_the_smallest_error(tmp_path: Path) -> None:
    pipelines.autoencoder().save_pretrained(tmp_path / "one")
    other = pipelines.autoencoder(scaling_factor=0.25)
    with torch.no_grad():
        other.decoder.conv_out.bias += torch.tensor([0.4, -0.4, 0.4])
    other.save_pretrained(tmp_path / "other")
    single = [rediffuse.load(tmp_path / name) for name in ("one", "other")]
    both = rediffuse.load(f"{tmp_path / 'one'},{tmp_path / 'other'}")
    assert both.provenance.sha256 not in {model.provenance.sha256 for model in single}
    bright = torch.tensor([0.4, -0.4, 0.4])[:, None, None].expand(3, 16, 16)
    x_0 = torch.stack([0.1 * images(1)[0], bright])

    def errors(model: rediffuse.DiffusionModel) -> Tensor:
        settings = rediffuse.DireSettings.for_model(model, solver="autoencoder")
        return rediffuse.reconstruct(model, x_0, settings).error.abs().mean(dim=(1, 2, 3))

    each = torch.stack([errors(model) for model in single])
    assert each.argmin(dim=0).tolist() == [0, 1]
    close(errors(both), each.amin(dim=0))


def test_an_autoencoder_that_overflows_is_not_chosen(tmp_path: Path) -> None:
    pipelines.autoencoder().save_pretrained(tmp_path / "one")
    other = pipelines.autoencoder()
    torch.nn.init.constant_(other.decoder.conv_in.weight, 1e30)
    other.save_pretrained(tmp_path / "other")
    made = []
    for names in ("one", "other,one", "one,other"):
        model = rediffuse.load(",".join(str(tmp_path / name) for name in names.split(",")))
        settings = rediffuse.DireSettings.for_model(model, solver="autoencoder")
        made.append(rediffuse.reconstruct(model, images(), settings).x_0_hat)
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[0], made[2])


def test_lpips_chooses_among_autoencoders_and_is_a_part_of_the_model_and_the_reconstruction(tmp_path: Path) -> None:
    pipelines.autoencoder().save_pretrained(tmp_path / "one")
    pipelines.quantised().save_pretrained(tmp_path / "other")
    weights = write_lpips(tmp_path)
    names = [str(tmp_path / "one"), str(tmp_path / "other")]
    single = [rediffuse.load(f"{name},lpips:{weights}") for name in names]
    both, plain = rediffuse.load(f"{names[0]},lpips:{weights},{names[1]}"), rediffuse.load(",".join(names))
    assert both.provenance.sha256 != plain.provenance.sha256
    assert both.provenance.parts.keys() == {*names, "lpips"}

    def made(model: rediffuse.DiffusionModel) -> rediffuse.Reconstruction:
        settings = rediffuse.DireSettings.for_model(model, solver="autoencoder")
        return rediffuse.reconstruct(model, images(8), settings)

    lpips, _ = read_lpips(weights)
    chosen = made(both)
    assert chosen.lpips is not None
    close(chosen.lpips, lpips(images(8), chosen.x_0_hat))
    each = torch.stack([lpips(images(8), made(model).x_0_hat)[:, 1] for model in single])  # (2, N)
    close(chosen.lpips[:, 1], each.amin(dim=0))
    close(torch.from_numpy(FEATURES["lpips"].measure(chosen)).float(), (chosen.lpips + 1e-6).log())
    assert made(plain).lpips is None
    with pytest.raises(ConfigError, match="features=lpips: the model has no LPIPS; add lpips:FOLDER"):
        FEATURES["lpips"].measure(made(plain))


@pytest.mark.parametrize("names", ["lpips:a,lpips:b", "lpips:a,lpips:b,{one}"])
def test_one_lpips_and_a_latent_model_are_needed(names: str, tmp_path: Path) -> None:
    pipelines.autoencoder().save_pretrained(tmp_path / "one")
    with pytest.raises(ConfigError, match="one lpips:FOLDER and at least one latent model are needed"):
        rediffuse.load(names.format(one=tmp_path / "one"))


def test_several_models_must_be_latent_and_fit(tmp_path: Path) -> None:
    pipelines.autoencoder(sample_size=18).save_pretrained(tmp_path / "one")
    deeper = {"block_out_channels": (8,) * 3, "down_block_types": ("DownEncoderBlock2D",) * 3}
    deeper["up_block_types"] = ("UpDecoderBlock2D",) * 3
    pipelines.autoencoder(**deeper).save_pretrained(tmp_path / "other")
    with pytest.raises(ConfigError, match=r"other: images of 18 px, the size of .*one, are not a multiple of 4"):
        rediffuse.load(f"{tmp_path / 'one'},{tmp_path / 'other'}")
    with pytest.raises(ConfigError, match="default: has no autoencoder; several models must be latent models"):
        rediffuse.load(f"{tmp_path / 'one'},default")


def test_prompt_and_guidance_are_part_of_the_settings_and_old_settings_keep_their_digest() -> None:
    fields: dict[str, Any] = {"image_size": 32, "model_sha256": "a" * 64}
    plain = rediffuse.DireSettings(**fields)
    assert digest(plain) == "6cb1a198dd898ed7"
    others = [rediffuse.DireSettings(**fields, prompt="a cat"), rediffuse.DireSettings(**fields, guidance_scale=2)]
    assert len({digest(settings) for settings in (plain, *others)}) == 3


def test_a_saved_pipeline_is_the_pipeline(pipeline: Any, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path / "saved")
    saved, given = rediffuse.load(tmp_path / "saved").provenance, rediffuse.load(pipeline).provenance
    assert saved.parts == given.parts
    assert {"vae", "scheduler", "text_encoder", "tokenizer"} < saved.parts.keys()


@pytest.mark.parametrize(
    ("make", "fields", "message"),
    [
        (pipelines.pixel, {"prompt": "a cat"}, "prompt=a cat: this model has no prompts"),
        (pipelines.pixel, {"guidance_scale": 2.0}, "guidance_scale=2.0: this model has no prompts; 1 is allowed"),
        (pipelines.dit, {"prompt": "a cat"}, "prompt=a cat: this model has no prompts"),
        (pipelines.dit, {"guidance_scale": -1.0}, "guidance_scale=-1.0: 0 or more is needed"),
    ],
)
def test_a_prompt_without_a_use_is_refused(make: Callable[[], Any], fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rediffuse.DireSettings.for_model(rediffuse.load(make()), **fields)


def test_rediffuses_own_models_have_no_prompts() -> None:
    with pytest.raises(ConfigError, match="prompt=a cat: default is a model without prompts"):
        rediffuse.DireSettings.for_model(rediffuse.load(), prompt="a cat")


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("vae", None, "UNet2DConditionModel needs a vae, and the pipeline has none"),
        ("vae", pipelines.autoencoder(latent_channels=3), "has 4 channels, but the latents have 3"),
        ("vae", pipelines.autoencoder(latents_mean=[0.0] * 4), "a scale by channel is not known"),
        ("vae", pipelines.autoencoder(sample_size=[16, 16]), r"sample_size=\[16, 16\]; the side of a square is needed"),
        ("vae", pipelines.autoencoder(scaling_factor="a"), "is wrong: could not convert string to float: 'a'"),
        ("text_encoder", None, "needs a text_encoder"),
        ("unet", pipelines.text_unet(in_channels=9), "has 9 channels and predicts 4"),
        ("unet", pipelines.pixel().unet, "UNet2DModel: has 3 channels, but the latents have 4"),
        ("vae", AutoencoderTiny(), "AutoencoderTiny: not a known autoencoder; AutoencoderKL, VQModel are known"),
        ("unet", None, "there is no unet and no transformer"),
    ],
)
def test_what_cannot_be_a_latent_model_is_named(part: str, value: Any, message: str) -> None:
    pipeline = pipelines.stable_diffusion()
    setattr(pipeline, part, value)
    with pytest.raises(ConfigError, match=f"^StableDiffusionPipeline: .*{message}"):
        rediffuse.load(pipeline)


@pytest.mark.parametrize("device", ["offload", "offload:cpu"])
def test_parts_in_main_memory_are_moved_when_they_compute_and_give_equal_results(device: str, tmp_path: Path) -> None:
    pipelines.stable_diffusion().save_pretrained(tmp_path / "saved")
    whole, model = rediffuse.load(tmp_path / "saved"), rediffuse.load(tmp_path / "saved", device=device)
    network, z, t = model.network, noise(1), torch.tensor([5])
    assert isinstance(network, PipelineNetwork)
    assert network.offload is not None
    assert model.autoencoder is not None
    uses = [
        (lambda: network.prompted("a", 1.0), network.text_encoders["text_encoder"]),
        (lambda: model.encode(images()), model.autoencoder.network),
        (lambda: network(z, t, prompt="a"), network.network),
        (lambda: model.decode(z, clip=True), model.autoencoder.network),
    ]
    for use, part in uses:
        use()
        assert network.offload.active is part
    settings = rediffuse.DireSettings.for_model(model, steps=STEPS, depth=2, prompt="ab", guidance_scale=2)
    made, expected = (rediffuse.reconstruct(one, images(), settings) for one in (model, whole))
    assert torch.equal(made.x_0_hat, expected.x_0_hat)


def test_several_autoencoders_in_main_memory_are_moved_by_one_hook(tmp_path: Path) -> None:
    pipelines.autoencoder().save_pretrained(tmp_path / "one")
    pipelines.quantised().save_pretrained(tmp_path / "other")
    model = rediffuse.load(f"{tmp_path / 'one'},{tmp_path / 'other'}", device="offload")
    assert isinstance(model.network, PipelineNetwork)
    rediffuse.reconstruct(model, images(), rediffuse.DireSettings.for_model(model, solver="autoencoder"))
    assert model.network.offload is not None
    assert model.network.offload.active is model.network.autoencoders[1].network


def test_a_device_that_is_not_there_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"^device=cuda:99: .*\S$"):
        rediffuse.load(pipelines.pixel(), device="cuda:99")
    with pytest.raises(ConfigError, match=r"^device=offload: only the parts of pipelines of diffusers"):
        rediffuse.load(device="offload")
