import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from golden_processes import GoldenProcess
from rediffuse.diffusion.config import ProcessConfig
from rediffuse.diffusion.likelihood import (
    bits_per_dimension,
    discretized_gaussian_log_likelihood,
    normal_kl,
)


def test_bits_per_dimension_equal_the_original(golden_loop: GoldenProcess):
    g = golden_loop
    bits = bits_per_dimension(g.process, g.model, g.values["x0"], g.noise("bpd"), clip_denoised=g.options.clip_denoised)
    assert g.error("bpd_total_bpd", bits.total) < 1e-5
    assert g.error("bpd_prior_bpd", bits.prior) < 1e-5
    assert g.error("bpd_vb", bits.vb) < 1e-5
    assert g.error("bpd_xstart_mse", bits.x_0_mse) < 1e-5
    assert g.error("bpd_mse", bits.eps_mse) < 1e-5


def test_the_network_gets_the_conditioning_and_its_errors_are_those_of_its_prediction():
    process = ProcessConfig(num_timesteps=5, schedule="cosine", variance="fixed_small").build()
    x_0, z = torch.rand(2, 1, 3), torch.randn(2, 1, 3)
    bits = bits_per_dimension(
        process, lambda x, t, y: y, x_0, lambda x: z, clip_denoised=False, conditioning={"y": z + 0.1}
    )
    assert bits.eps_mse.shape == (2, 5)
    torch.testing.assert_close(bits.eps_mse, torch.full((2, 5), 0.01), rtol=1e-3, atol=0)


def test_bits_are_computed_on_the_device_of_the_images():
    process = ProcessConfig(num_timesteps=2, schedule="cosine", variance="fixed_small").build()
    bits = bits_per_dimension(process, lambda x, t: x, torch.zeros(2, 1, 3, device="meta"), torch.zeros_like)
    assert {term.device.type for term in bits} == {"meta"}


def test_the_kl_of_two_gaussians_is_the_librarys():
    mean_1, log_variance_1, mean_2, log_variance_2 = torch.randn(4, 5, dtype=torch.float64)
    library = kl_divergence(Normal(mean_1, (0.5 * log_variance_1).exp()), Normal(mean_2, (0.5 * log_variance_2).exp()))
    torch.testing.assert_close(normal_kl(mean_1, log_variance_1, mean_2, log_variance_2), library)


@pytest.mark.parametrize(("mean", "log_scale"), [(0.0, -3.0), (0.98, -4.0), (-1.3, -1.0), (0.2, 2.0)])
def test_the_256_bins_of_a_discretized_gaussian_hold_all_its_mass(mean: float, log_scale: float):
    x = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    full = torch.full_like(x, mean), torch.full_like(x, log_scale)
    assert discretized_gaussian_log_likelihood(x, *full).exp().sum().item() == pytest.approx(1, abs=1e-9)


def test_a_value_that_the_gaussian_excludes_counts_as_one_in_10_to_the_12():
    x, mean, log_scale = (torch.tensor([value], dtype=torch.float64) for value in (0.5, -0.5, -9.0))
    assert discretized_gaussian_log_likelihood(x, mean, log_scale).item() == pytest.approx(math.log(1e-12))


def test_the_predicted_image_is_clipped_unless_told_otherwise():
    process = ProcessConfig(num_timesteps=3, schedule="cosine", prediction="x_0", variance="fixed_small").build()
    x_0 = torch.zeros(1, 1, 2)
    errors = [
        bits_per_dimension(process, lambda x, t: torch.full_like(x, 3.0), x_0, torch.zeros_like, **given).x_0_mse
        for given in ({}, {"clip_denoised": True}, {"clip_denoised": False})
    ]
    assert [error.unique().tolist() for error in errors] == [[1], [1], [9]]
