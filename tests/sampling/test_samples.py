from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rediffuse.diffusion import trajectory
from rediffuse.diffusion.noise import PerSampleNoise
from rediffuse.diffusion.process import SamplerOptions
from rediffuse.errors import ConfigError
from rediffuse.sampling.config import SamplingSettings
from rediffuse.sampling.guide import guide
from rediffuse.sampling.sample import denoise, sample, select_steps, upscale
from sampling.tiny import classifier, unet, upsampler, without_noise

QUICK = SamplingSettings(steps=2)
SETTINGS = [
    SamplingSettings(sampler="ddpm", steps=3),
    SamplingSettings(sampler="ddim", steps=4),
    SamplingSettings(sampler="ddim", steps=4, eta=0.7),
    SamplingSettings(sampler="dpm_solver", steps=3),
    SamplingSettings(sampler="heun", steps=3, spacing="karras"),
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: f"{s.sampler}-{s.eta}")
def test_a_sample_depends_on_its_own_seed_alone(settings: SamplingSettings) -> None:
    model, seeds = unet(num_classes=3), [5, 3, 8]
    together = dict(zip(seeds, sample(model, seeds, settings, labels=[0, 1, 2]), strict=True))
    in_pairs = dict(zip([8, 5, 3], sample(model, [8, 5, 3], settings, labels=[2, 0, 1], batch_size=2), strict=True))
    # Heun's method weighs the eps of a level with little noise by a long step: 1e-7 in x is 1e-5 in that eps.
    atol = 1e-4 if settings.sampler == "heun" else 1e-5
    for seed in seeds:
        torch.testing.assert_close(together[seed], in_pairs[seed], rtol=0, atol=atol)
    assert (together[5] - together[3]).abs().max() > 0.1


def test_samplers_are_those_of_the_diffusion_package() -> None:
    model, seeds = unet(), [1, 2]
    for settings, respacing in zip(SETTINGS, ("3", "ddim4", "ddim4", "3", "karras3"), strict=True):
        noise = PerSampleNoise(seeds)
        x_T = noise.normal((3, 16, 16))
        options = SamplerOptions(eta=settings.eta, noise=noise)
        expected = trajectory.last(
            trajectory.sample(settings.sampler, model.process(respacing), model.network, x_T, options)
        )
        x_0 = torch.stack(list(sample(model, seeds, settings)))
        torch.testing.assert_close(x_0, expected, rtol=0, atol=0)


def test_selected_steps_are_evenly_spaced_and_end_with_the_sample() -> None:
    model, settings = unet(), SamplingSettings(sampler="dpm_solver", steps=7)
    steps = list(denoise(model, model.denoiser(settings), [0], settings))
    kept = select_steps(model, denoise(model, model.denoiser(settings), [0], settings), settings, 3)
    assert len(kept) == 3
    for step, place in zip(kept, (0, 3, 6), strict=True):
        torch.testing.assert_close(step.x, steps[place].x)
    assert len(select_steps(model, iter(steps), settings, 50)) == 7


@pytest.mark.parametrize("num_classes", [None, 3], ids=["unconditional", "class-conditional"])
def test_guidance_makes_samples_that_the_classifier_takes_for_their_class(num_classes: int | None) -> None:
    # Without eps of its own, what the guidance adds stays where it is.
    model, judge, labels = without_noise(num_classes), classifier(), [0, 1, 2]

    def log_p(scale: float) -> Tensor:
        guidance = guide(model, judge, scale)
        x_0 = torch.stack(list(sample(model, range(3), SamplingSettings(steps=5), labels=labels, guidance=guidance)))
        with torch.no_grad():
            return judge.network(x_0, torch.zeros(3)).log_softmax(dim=-1).diagonal()

    assert (log_p(1000.0) > log_p(0.0) + 0.01).all()


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"image_size": 32}, "a classifier of image size 32 cannot guide a model of image size 16"),
        ({"num_classes": 4}, "a classifier of number of classes 4 cannot guide a model of number of classes 3"),
        ({"schedule": "linear"}, "noise linear over 1000 cannot guide a model of noise cosine over 1000"),
    ],
)
def test_a_classifier_that_does_not_fit_is_refused_with_both_values(fields: dict, line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        guide(unet(num_classes=3), classifier(**fields), 1.0)


def test_a_classifier_of_other_classes_is_refused_where_both_say_theirs() -> None:
    def named(model, *names: str):
        return replace(model, training={"classes": list(names)})

    with pytest.raises(ConfigError, match="a classifier of classes b, a, c cannot guide a model of classes a, b, c"):
        guide(named(unet(num_classes=3), "a", "b", "c"), named(classifier(), "b", "a", "c"), 1.0)
    guide(named(unet(num_classes=3), "a", "b", "c"), named(classifier(), "a", "b", "c"), 1.0)
    guide(named(unet(num_classes=3), "a", "b", "c"), classifier(), 1.0)


def test_wrong_scales_and_classes_beyond_the_classifier_are_refused() -> None:
    with pytest.raises(ConfigError, match="scale=-1: 0 or more"):
        guide(unet(), classifier(), -1)
    guidance = guide(unet(), classifier(), 1.0)
    with pytest.raises(ConfigError, match="class 3 is given; the classifier has 0 to 2"):
        next(sample(unet(), [0], QUICK, labels=[3], guidance=guidance))


@pytest.mark.parametrize(
    ("num_classes", "labels", "line"),
    [
        (None, [0], "leave them out"),
        (3, None, "this class-conditional model needs one class from 0 to 2 per image"),
    ],
)
def test_labels_that_do_not_fit_are_refused_at_once(num_classes: int | None, labels: list | None, line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        sample(unet(num_classes), [0, 1], QUICK, labels=labels)


def test_other_mistakes_are_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="is a superres model; sample takes a unet"):
        sample(upsampler(), [0], QUICK)
    with pytest.raises(ConfigError, match="is a unet model; upscale takes a superres model"):
        upscale(unet(), torch.zeros(1, 3, 8, 8), QUICK, seeds=[0])
    with pytest.raises(ConfigError, match="guidance needs one class of 0 or more per image"):
        sample(unet(), [0], QUICK, guidance=guide(unet(), classifier(), 1.0))
    with pytest.raises(ConfigError, match="seeds: given none"):
        sample(unet(), [], QUICK)
    with pytest.raises(ConfigError, match="batch_size=0"):
        sample(unet(), [0], QUICK, batch_size=0)
    with pytest.raises(ConfigError, match="ddim600"):
        sample(unet(), [0], SamplingSettings(steps=600))
    with pytest.raises(ConfigError, match=r"low_res: given \(2, 3, 8, 8\); \(1, 3, s, s\)"):
        upscale(upsampler(), torch.zeros(2, 3, 8, 8), QUICK, seeds=[0])


def test_a_sample_that_is_no_number_is_named() -> None:
    model = unet()
    model.network.out[-1].bias.data.fill_(torch.nan)
    with pytest.raises(ConfigError, match="seed 7: the sample has an RMS of nan"):
        list(sample(model, [7], QUICK))


def test_a_sample_far_outside_the_range_of_images_is_named() -> None:
    settings = SamplingSettings(steps=4, clip=False)  # eps = 0 everywhere: nothing is denoised, and x grows
    with pytest.raises(ConfigError, match=r"seed 7: the sample has an RMS of [\d.e+]+, at most 2 is allowed.*clip x_0"):
        list(sample(without_noise(), [7], settings))


def test_enlarged_images_depend_on_what_is_enlarged() -> None:
    model, low_res = upsampler(), torch.linspace(-1, 1, 2 * 3 * 64).view(2, 3, 8, 8)
    together = torch.stack(list(upscale(model, low_res, QUICK, seeds=[4, 4])))
    [alone] = upscale(model, low_res[1:], QUICK, seeds=[4])
    assert together.shape == (2, 3, 16, 16)
    torch.testing.assert_close(together[1], alone, rtol=0, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 0.01
