"""Pixel pipelines of diffusers as models: every step is that of diffusers' own schedulers."""

import json
from pathlib import Path

import pytest
import torch
from diffusers.schedulers.scheduling_consistency_models import CMStochasticIterativeScheduler
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddim_inverse import DDIMInverseScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_pndm import PNDMScheduler
from torch import Tensor

import pipelines
import rediffuse
from rediffuse.diffusion import trajectory
from rediffuse.diffusion.process import SamplerOptions
from rediffuse.errors import CheckpointError, ConfigError, RediffuseError

STEPS = 5
UNCLIPPED = SamplerOptions(clip_denoised=False)


def images(count: int = 2) -> Tensor:
    return torch.rand(count, 3, pipelines.SIDE, pipelines.SIDE, generator=torch.Generator().manual_seed(1)) * 2 - 1


def noise(count: int = 2) -> Tensor:
    return torch.randn(count, 3, pipelines.SIDE, pipelines.SIDE, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def theirs(
    unet: torch.nn.Module, scheduler: DDIMScheduler | DDIMInverseScheduler, x: Tensor, **step: bool
) -> list[Tensor]:
    """x after every step of diffusers' loop."""
    scheduler.set_timesteps(STEPS)
    xs = []
    for t in scheduler.timesteps:
        x = scheduler.step(unet(x, t).sample, int(t), x, **step).prev_sample
        xs.append(x)
    return xs


def close(given: list[Tensor], expected: list[Tensor]) -> None:
    for x, of_theirs in zip(given, expected, strict=True):
        torch.testing.assert_close(x, of_theirs, rtol=1e-5, atol=1e-5 * max(1.0, of_theirs.abs().max().item()))


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1},
        {"timestep_spacing": "trailing", "beta_schedule": "squaredcos_cap_v2"},
        {"trained_betas": [0.01] * 200, "num_train_timesteps": 200},
    ],
    ids=["leading", "offset", "trailing", "trained_betas"],
)
def test_sampling_and_clipping_are_those_of_the_ddim_scheduler(prediction: str, options: dict) -> None:
    pipeline = pipelines.pixel(pipelines.ddim(prediction_type=prediction, **options))
    model = rediffuse.load(pipeline)
    process = model.process(f"ddim{STEPS}")
    steps = trajectory.sample("ddim", process, model.network, noise(), UNCLIPPED)
    close([step.x for step in steps], theirs(pipeline.unet, pipeline.scheduler, noise()))
    # With clipping diffusers keeps the eps of the unclipped x_0, unless `use_clipped_model_output` is set.
    clipping = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=True)
    steps = trajectory.sample("ddim", process, model.network, noise(), SamplerOptions())
    close([step.x for step in steps], theirs(pipeline.unet, clipping, noise(), use_clipped_model_output=True))


@pytest.mark.parametrize(
    "options", [{}, {"steps_offset": 1}, {"timestep_spacing": "trailing"}, {"prediction_type": "v_prediction"}]
)
def test_inversion_is_that_of_the_inverse_scheduler(options: dict) -> None:
    pipeline = pipelines.pixel(pipelines.ddim(**options))
    model = rediffuse.load(pipeline)
    steps = trajectory.invert("ddim", model.process(f"ddim{STEPS}"), model.network, images(), UNCLIPPED)
    inverse = DDIMInverseScheduler.from_config(pipeline.scheduler.config)
    close([step.x for step in steps], theirs(pipeline.unet, inverse, images()))


def test_a_last_timestep_without_signal_is_sampled_and_inverted() -> None:
    scheduler = pipelines.ddim(prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing")
    pipeline = pipelines.pixel(scheduler)
    model = rediffuse.load(pipeline)
    process = model.process(f"ddim{STEPS}")
    assert process.schedule.alpha_bar[-1] == 0
    steps = trajectory.sample("ddim", process, model.network, noise(), UNCLIPPED)
    close([step.x for step in steps], theirs(pipeline.unet, scheduler, noise()))
    for solver in ("ddim", "dpm_solver", "heun"):
        settings = rediffuse.DireSettings.for_model(model, steps=STEPS, solver=solver, grid="aligned")
        assert rediffuse.reconstruct(model, images(), settings).is_finite.all()


def test_ancestral_sampling_is_that_of_the_ddpm_scheduler() -> None:
    scheduler = DDPMScheduler(num_train_timesteps=20, variance_type="learned_range", beta_end=0.3)
    pipeline = pipelines.pixel(scheduler, out_channels=6)
    model = rediffuse.load(pipeline)
    assert model.process_config.learns_variance
    ours, of_theirs = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    options = SamplerOptions(noise=lambda x: torch.randn(x.shape, generator=ours))
    steps = trajectory.sample("ddpm", model.process(), model.network, noise(), options)
    x, expected = noise(), []
    for t in scheduler.timesteps:
        with torch.no_grad():
            output = pipeline.unet(x, t).sample
        x = scheduler.step(output, int(t), x, generator=of_theirs).prev_sample
        expected.append(x)
    close([step.x for step in steps], expected)


def test_a_variance_that_the_scheduler_is_not_told_of_is_ignored() -> None:
    model = rediffuse.load(pipelines.pixel(pipelines.ddim(), out_channels=6))
    assert model.network(noise(), torch.tensor([5, 5])).shape == noise().shape
    [image] = rediffuse.sample(model, [0], rediffuse.SamplingSettings(steps=STEPS))
    assert image.shape == (3, pipelines.SIDE, pipelines.SIDE)


def test_classes_reach_the_network() -> None:
    pipeline = pipelines.pixel(pipelines.ddim(), num_class_embeds=5)
    model = rediffuse.load(pipeline)
    assert model.num_classes == 5
    t, y = torch.tensor([5, 5]), torch.tensor([0, 4])
    with torch.no_grad():
        torch.testing.assert_close(model.network(noise(), t, y=y), pipeline.unet(noise(), t, class_labels=y).sample)
    settings = rediffuse.DireSettings.for_model(model, steps=STEPS, depth=2)
    assert len(rediffuse.reconstruct(model, images(), settings, labels=[0, 4])) == 2
    with pytest.raises(ConfigError, match="this class-conditional model needs one class from 0 to 4"):
        rediffuse.reconstruct(model, images(), settings)


def test_the_schedulers_of_other_samplers_have_the_same_process() -> None:
    fields = {
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "timestep_spacing": "trailing",
    }
    chains = []
    for kind in (DDIMScheduler, PNDMScheduler, EulerDiscreteScheduler):
        schedule = rediffuse.load(pipelines.pixel(kind(**fields))).process(str(STEPS)).schedule
        chains.append((schedule.timesteps.tolist(), schedule.alpha_bar.tolist()))
    assert chains[0] == chains[1] == chains[2]
    assert chains[0][0] == [199, 399, 599, 799, 999]


def test_a_saved_pipeline_is_the_pipeline(tmp_path: Path) -> None:
    pipeline = pipelines.pixel(pipelines.ddim())
    pipeline.save_pretrained(tmp_path / "saved")
    saved, given = rediffuse.load(tmp_path / "saved"), rediffuse.load(pipeline)
    assert saved.provenance.sha256 == given.provenance.sha256
    assert saved.provenance.parts.keys() == {"unet", "scheduler"}
    settings = rediffuse.DireSettings.for_model(saved, steps=STEPS, depth=2)
    here, there = (rediffuse.reconstruct(model, images(), settings) for model in (saved, given))
    assert torch.equal(here.x_0_hat, there.x_0_hat)


def test_every_part_counts_for_the_checksum() -> None:
    of_one = rediffuse.load(pipelines.pixel(pipelines.ddim())).provenance
    other_spacing = rediffuse.load(pipelines.pixel(pipelines.ddim(timestep_spacing="trailing"))).provenance
    changed = pipelines.pixel(pipelines.ddim())
    changed.unet.conv_in.bias.data[0] += 1
    shas = {of_one.sha256, other_spacing.sha256, rediffuse.load(changed).provenance.sha256}
    assert len(shas) == 3
    assert of_one.parts["unet"] == other_spacing.parts["unet"]


def test_files_of_the_first_versions_lie_in_one_folder(tmp_path: Path) -> None:
    pipelines.pixel(pipelines.ddim()).save_pretrained(tmp_path)
    for path in [*(tmp_path / "unet").iterdir(), *(tmp_path / "scheduler").iterdir()]:
        path.rename(tmp_path / path.name)
    (tmp_path / "unet").rmdir()
    (tmp_path / "scheduler").rmdir()
    assert rediffuse.load(tmp_path).image_size == pipelines.SIDE


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    pipelines.pixel().save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(CheckpointError, match=r"diffusion_pytorch_model\.bin: is a pickle, which can run code"):
        rediffuse.load(tmp_path)


def broken(tmp_path: Path, file: str, content: str) -> Path:
    pipelines.pixel().save_pretrained(tmp_path)
    (tmp_path / file).write_text(content)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "content", "error", "message"),
    [
        (
            "model_index.json",
            '{"unet": ["diffusers", "UNet2DModel"]}',
            ConfigError,
            "needs a scheduler, and the pipeline has",
        ),
        ("model_index.json", '{"unet": [1, 2, 3]}', ConfigError, "does not list the parts"),
        (
            "model_index.json",
            '{"unet": ["mine", "Net"], "scheduler": ["mine", "S"]}',
            ConfigError,
            r"code of its own \(mine.Net",
        ),
        ("model_index.json", '{"unet": ["diffusers", "UNot"], "scheduler": ["mine", "S"]}', ConfigError, "has no UNot"),
        ("unet/config.json", "{}", CheckpointError, "unet: has .* bytes of weights, but the network of its"),
        ("unet/config.json", "x", CheckpointError, "cannot be loaded as UNet2DModel"),
        ("unet/diffusion_pytorch_model.safetensors", "", CheckpointError, "unet: has 0 bytes of weights"),
    ],
)
def test_a_broken_folder_is_one_line(tmp_path: Path, file: str, content: str, error: type, message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        rediffuse.load(broken(tmp_path, file, content))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "fields", "message"),
    [
        (
            "scheduler/scheduler_config.json",
            {"num_train_timesteps": 10**9},
            "num_train_timesteps=1000000000: at most 100000",
        ),
        (
            "unet/config.json",
            {"block_out_channels": [8, 10**6]},
            r"unet: has \d+ bytes of weights, but the network of its",
        ),
    ],
)
def test_what_would_take_much_memory_is_refused_first(file: str, fields: dict, message: str, tmp_path: Path) -> None:
    pipelines.pixel().save_pretrained(tmp_path)
    (tmp_path / file).write_text(json.dumps(json.loads((tmp_path / file).read_text()) | fields))
    with pytest.raises(RediffuseError, match=message):
        rediffuse.load(tmp_path)


@pytest.mark.parametrize(
    ("scheduler", "options", "message"),
    [
        (
            CMStochasticIterativeScheduler(),
            {},
            "CMStochasticIterativeScheduler: not a known scheduler; DDIMScheduler, .* are known",
        ),
        (DDPMScheduler(beta_schedule="sigmoid"), {}, "DDPMScheduler: beta_schedule=sigmoid"),
        (pipelines.ddim(rescale_betas_zero_snr=True), {}, "eps of pure noise gives no x_0"),
        (DDPMScheduler(variance_type="learned"), {}, "the network has no channels for it"),
        (pipelines.ddim(), {"out_channels": 4}, "has 3 channels and predicts 4; 3, or 6 with a variance"),
        (pipelines.ddim(), {"sample_size": (8, 16)}, r"sample_size=\(8, 16\); the side of a square"),
        (pipelines.ddim(), {"class_embed_type": "timestep"}, "class_embed_type=timestep"),
    ],
)
def test_what_cannot_be_a_model_is_named(scheduler: object, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^DDPMPipeline: .*{message}"):
        rediffuse.load(pipelines.pixel(scheduler, **options))


def test_what_a_pipeline_has_not_is_named(tmp_path: Path) -> None:
    pipelines.pixel().save_pretrained(tmp_path / "saved")
    model = rediffuse.load(tmp_path / "saved")
    with pytest.raises(ConfigError, match="frequency=freeu: the network of a pipeline has no such filter"):
        rediffuse.reconstruct(model, images(), rediffuse.DireSettings.for_model(model, frequency="freeu"))
    with pytest.raises(ConfigError, match="steps=1001: from 1 to 1000"):
        rediffuse.DireSettings.for_model(model, steps=1001)
    odd = rediffuse.load(pipelines.pixel(pipelines.ddim(timestep_spacing="odd")))
    with pytest.raises(ConfigError, match=r"^timestep_spacing=odd, steps=5: odd is not supported"):
        rediffuse.DireSettings.for_model(odd, steps=STEPS)
    with pytest.raises(ConfigError, match="is a pipeline of diffusers, which its save_pretrained writes"):
        model.save(tmp_path / "model")
    with pytest.raises(CheckpointError, match="is a pipeline of diffusers; a model of rediffuse is needed"):
        rediffuse.load_classifier(tmp_path / "saved")
