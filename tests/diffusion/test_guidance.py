import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from golden_processes import GaussianData
from rediffuse.diffusion import trajectory
from rediffuse.diffusion.config import ProcessConfig
from rediffuse.diffusion.guidance import classifier_guidance
from rediffuse.diffusion.process import SamplerOptions
from rediffuse.diffusion.samplers import SAMPLERS


def test_classifier_guidance_is_the_gradient_of_the_chosen_class():
    weights = torch.randn(5, 12, dtype=torch.float64)
    x, y = torch.randn(3, 3, 2, 2, dtype=torch.float64), torch.tensor([4, 0, 2])

    def classifier(x: Tensor, timesteps: Tensor) -> Tensor:
        return timesteps[:, None] * (x.flatten(1) @ weights.T)

    gradient = classifier_guidance(classifier, scale=2.0)(x, torch.full((3,), 0.5), y=y, low_res=x)
    p = F.softmax(classifier(x, torch.full((3,), 0.5)), dim=-1)
    expected = weights[y] - p @ weights
    torch.testing.assert_close(gradient.flatten(1), expected)


def test_guidance_leaves_no_gradient_in_the_classifier():
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    with torch.no_grad():
        classifier_guidance(lambda x, t: classifier(x), 1.0)(
            torch.randn(2, 1, 2, 2), torch.zeros(2), y=torch.tensor([0, 1])
        )
    assert all(parameter.grad is None for parameter in classifier.parameters())


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_guidance_moves_the_mean_of_a_gaussian_as_bayes_says(sampler: str):
    """x_0 ~ N(0, c^2) and p(y | x_0) ~ exp(g x_0) give x_0 | y ~ N(c^2 g, c^2)."""
    c, g, scale = 0.5, 1.2, 2.0
    # Alg. 1 of ADM, for DDPM, is of first order in the step, and its error larger
    num_steps = 1600 if sampler == "ddpm" else 400
    process = ProcessConfig(num_timesteps=4000, variance="fixed_small").build(str(num_steps))
    data = GaussianData(c, process)
    alpha_bar_of = torch.from_numpy(ProcessConfig(num_timesteps=4000).build().schedule.alpha_bar)

    def guidance(x_t: Tensor, timesteps: Tensor) -> Tensor:
        # log p(y | x_t) = g E[x_0 | x_t] + const, for x_0 | x_t is Gaussian with a variance that x_t does not change
        alpha_bar = alpha_bar_of[timesteps].view(-1, 1, 1)
        return (scale * g * alpha_bar.sqrt() * c**2 / (alpha_bar * c**2 + 1 - alpha_bar)).expand_as(x_t)

    # Every step is linear: without noise, x_0 is the mean.
    options = SamplerOptions(clip_denoised=False, guidance=guidance, noise=torch.zeros_like)
    x_T = torch.tensor([0.0, 1.0], dtype=torch.float64).view(1, 1, 2)
    x_0 = trajectory.last(trajectory.sample(sampler, process, data.eps, x_T, options))
    if sampler != "ddpm":
        assert (x_0[..., 1] - x_0[..., 0]).item() == pytest.approx(c, rel=0.02)
    assert x_0[..., 0].item() == pytest.approx(scale * c**2 * g, rel=0.02)


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_guidance_is_given_the_conditioning_of_the_network(sampler: str):
    process = ProcessConfig(num_timesteps=50, variance="fixed_small").build("5")
    classes = []

    def guidance(x_t: Tensor, timesteps: Tensor, *, y: Tensor) -> Tensor:
        classes.append(y)
        return torch.zeros_like(x_t)

    y = torch.tensor([2])
    options = SamplerOptions(guidance=guidance, conditioning={"y": y}, noise=torch.zeros_like)
    trajectory.last(trajectory.sample(sampler, process, lambda x, t, y: 0 * x, torch.ones(1, 1, 2), options))
    assert len(classes) >= 5
    assert all(given is y for given in classes)
