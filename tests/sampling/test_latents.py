import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from golden_values import rnd
from rediffuse.errors import ConfigError
from rediffuse.sampling.config import SamplingSettings
from rediffuse.sampling.latents import decode, interpolate, invert, slerp
from sampling.tiny import unet, without_noise

A, B = rnd("a", 3, 8, 8), rnd("b", 3, 8, 8)


def test_slerp_begins_and_ends_with_its_latents() -> None:
    torch.testing.assert_close(slerp(A, B, 0.0), A)
    torch.testing.assert_close(slerp(A, B, 1.0), B)


@given(fraction=st.floats(0, 1))
def test_slerp_keeps_the_length_and_divides_the_angle(fraction: float) -> None:
    a, b = (x.double() / x.double().norm() for x in (A, B))
    between = slerp(a, b, fraction)
    assert between.norm().item() == pytest.approx(1)
    theta = torch.acos((a * b).sum())
    torch.testing.assert_close((a * between).sum(), torch.cos(fraction * theta))


def test_slerp_of_parallel_latents_is_the_straight_line_and_of_opposite_ones_is_refused() -> None:
    torch.testing.assert_close(slerp(A, 3 * A, 0.5), 2 * A)
    with pytest.raises(ConfigError, match="opposite"):
        slerp(A, -A, 0.5)
    with pytest.raises(ConfigError, match="a latent is 0"):
        slerp(A, torch.zeros_like(A), 0.5)


def test_a_model_that_finds_no_noise_is_inverted_exactly() -> None:
    model, settings = without_noise(), SamplingSettings(steps=5, clip=False)
    x_0 = rnd("x_0", 2, 3, 16, 16).clamp(-1, 1)
    x_T = invert(model, x_0, settings)
    torch.testing.assert_close(x_T, x_0 * float(model.process("ddim5").schedule.alpha_bar[-1]) ** 0.5)
    torch.testing.assert_close(decode(model, x_T, settings), x_0)


def test_interpolation_leads_from_one_image_to_the_other() -> None:
    model, settings = unet(num_classes=3), SamplingSettings(steps=4)
    a, b = rnd("a", 3, 16, 16), rnd("b", 3, 16, 16)
    frames = list(interpolate(model, a, b, settings, num_frames=3, label=1, batch_size=2))
    assert len(frames) == 3
    for frame, end in ((frames[0], a), (frames[2], b)):
        torch.testing.assert_close(frame, decode(model, end[None], settings, labels=[1])[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (SamplingSettings(sampler="ddpm"), "sampler=ddpm: ddim, dpm_solver, heun are allowed"),
        (SamplingSettings(eta=1.0), "eta=1.0: latents need sampling without noise"),
    ],
)
def test_samplers_without_a_way_back_are_refused(settings: SamplingSettings, line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        invert(unet(), torch.zeros(1, 3, 16, 16), settings)


def test_images_of_another_size_and_too_few_frames_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"given \(1, 3, 8, 8\) float32; \(N, 3, 16, 16\) float32 is needed"):
        invert(unet(), torch.zeros(1, 3, 8, 8))
    with pytest.raises(ConfigError, match="frames=1: at least 2"):
        next(interpolate(unet(), A, B, num_frames=1))
