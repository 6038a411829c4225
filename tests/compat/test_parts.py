"""The small parts of `nn` and the likelihood terms of `losses`."""

import math

import pytest
import torch
from torch import Tensor
from torch import nn as torch_nn

from rediffuse.compat.guided_diffusion import losses, nn


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_layers_of_every_dimension_take_torchs_arguments(dims: int) -> None:
    x = torch.ones(1, 2, *(4,) * dims)
    assert nn.conv_nd(dims, 2, 5, 3, padding=1)(x).shape == (1, 5, *(4,) * dims)
    assert nn.avg_pool_nd(dims, kernel_size=2, stride=2)(x).shape == (1, 2, *(2,) * dims)


@pytest.mark.parametrize("make", [nn.conv_nd, nn.avg_pool_nd])
def test_four_dimensions_are_refused(make: object) -> None:
    with pytest.raises(ValueError, match="dims=4"):
        make(4, 2)


def test_normalisation_computes_in_float32() -> None:
    x = torch.full((1, 32, 4), 6e4, dtype=torch.float16)
    x[..., 0] = -6e4
    out = nn.normalization(32)(x)
    assert out.dtype == torch.float16
    assert out.isfinite().all()


def test_averages_follow_their_sources() -> None:
    target, source = torch_nn.Parameter(torch.ones(2)), torch_nn.Parameter(torch.zeros(2))
    nn.update_ema([target], [source], rate=0.9)
    nn.update_ema(iter([target]), iter([source]))
    torch.testing.assert_close(target.detach(), torch.full((2,), 0.9 * 0.99))


def test_modules_are_zeroed_and_scaled_in_place() -> None:
    layer = nn.linear(2, 3, bias=False)
    before = layer.weight.detach().clone()
    assert nn.scale_module(layer, 2) is layer
    torch.testing.assert_close(layer.weight.detach(), 2 * before)
    assert not nn.zero_module(layer).weight.any()


def test_mean_flat_keeps_the_batch() -> None:
    assert nn.mean_flat(torch.arange(8.0).view(2, 2, 2)).tolist() == [1.5, 5.5]


def test_timestep_embedding_has_cosines_then_sines() -> None:
    embedding = nn.timestep_embedding(torch.tensor([0.0, 2.5]), 5, max_period=100)
    expected = [[1, 1, 0, 0, 0], [math.cos(2.5), math.cos(0.25), math.sin(2.5), math.sin(0.25), 0]]
    torch.testing.assert_close(embedding, torch.tensor(expected))


@pytest.mark.parametrize("flag", [False, True])
def test_checkpoint_gives_all_gradients(flag: bool) -> None:
    x, weight = torch.ones(2, requires_grad=True), torch_nn.Parameter(torch.tensor(3.0))
    calls: list[int] = []

    def square(x: Tensor) -> Tensor:
        calls.append(1)
        return (x * weight) ** 2

    nn.checkpoint(square, (x,), [weight], flag).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [18, 18]
    assert weight.grad == 12
    assert len(calls) == 1 + flag


def test_activation_is_x_times_its_sigmoid() -> None:
    x = torch.linspace(-3, 3, 7)
    torch.testing.assert_close(nn.SiLU()(x), x * x.sigmoid())


def test_kl_takes_numbers_beside_tensors() -> None:
    mean = torch.tensor([0.0, 2.0], dtype=torch.float64)
    torch.testing.assert_close(losses.normal_kl(mean, 0.0, 0, 0.0), mean**2 / 2)
    torch.testing.assert_close(losses.normal_kl(0.0, math.log(4), 0.0, mean)[0].item(), 0.5 * (4 - 1 - math.log(4)))


def test_all_bins_together_have_the_mass_of_one() -> None:
    x = torch.arange(256) / 127.5 - 1
    log_p = losses.discretized_gaussian_log_likelihood(
        x, means=torch.full_like(x, 0.3), log_scales=torch.full_like(x, -2)
    )
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-4)


def test_the_approximate_cdf_is_near_the_true_one() -> None:
    x = torch.linspace(-4, 4, 81, dtype=torch.float64)
    true = torch.distributions.Normal(0, 1).cdf(x)
    torch.testing.assert_close(losses.approx_standard_normal_cdf(x), true, rtol=0, atol=3e-4)
