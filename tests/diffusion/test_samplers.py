import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from golden_processes import GaussianData, GoldenProcess
from rediffuse.diffusion import ddim, ddpm, dpm_solver, noise
from rediffuse.diffusion.config import ProcessConfig
from rediffuse.diffusion.process import SamplerOptions
from rediffuse.errors import ConfigError

DEPTHS = [(None, ""), (5, "_real5")]


def towards_zero(x, timesteps):
    return -0.3 * x


def test_one_ddpm_step_equals_the_original(golden: GoldenProcess):
    v = golden.values
    plain = ddpm.step(golden.process, golden.model, v["xt"], v["ts"], golden.noise("z"), golden.options)
    guided = ddpm.step(
        golden.process,
        golden.model,
        v["xt"],
        v["ts"],
        golden.noise("z"),
        replace(golden.options, guidance=towards_zero),
    )
    assert golden.error("p_sample", plain.sample) < 2e-6
    assert golden.error("p_sample_guided", guided.sample) < 2e-6


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_one_ddim_step_equals_the_original_and_is_finite_where_it_was_not(golden: GoldenProcess, eta: float):
    v = golden.values
    one = ddim.step(golden.process, golden.model, v["xt"], v["ts"], golden.options, eta=eta, noise=golden.noise("z"))
    assert golden.error(f"ddim_eta{eta}", one.sample) < 2e-6


def test_guided_ddim_and_inversion_steps_equal_the_original(golden: GoldenProcess):
    v = golden.values
    guided = replace(golden.options, guidance=towards_zero)
    one = ddim.step(golden.process, golden.model, v["xt"], v["ts"], guided)
    back = ddim.invert_step(golden.process, golden.model, v["xt"], v["ts"], golden.options)
    assert golden.error("ddim_guided", one.sample) < 2e-6
    assert golden.error("ddim_reverse", back.sample) < 2e-6


def test_whole_sampling_loops_equal_the_original(golden_loop: GoldenProcess):
    g = golden_loop
    x_T = g.values["xt"]
    assert g.error("p_loop", ddpm.sample(g.process, g.model, x_T, g.noise("loop"), g.options)) < 1e-5
    assert g.error("ddim_loop", ddim.sample(g.process, g.model, x_T, g.options)) < 1e-5


@pytest.mark.parametrize(("depth", "suffix"), DEPTHS)
def test_inversion_and_reconstruction_equal_the_original(golden_loop: GoldenProcess, depth: int | None, suffix: str):
    g = golden_loop
    x_T = ddim.invert(g.process, g.model, g.values["x0"], g.options, depth=depth)
    assert g.error("ddim_invert" + suffix, x_T) < 1e-5
    x_0_hat = ddim.sample(g.process, g.model, g.values["ddim_invert" + suffix], g.options, depth=depth)
    assert g.error("ddim_roundtrip" + suffix, x_0_hat) < 1e-5


def gaussian(num_steps: int, num_train_timesteps: int = 8000) -> tuple[GaussianData, torch.Tensor]:
    process = ProcessConfig(num_timesteps=num_train_timesteps, variance="fixed_small").build(str(num_steps))
    return GaussianData(0.5, process), torch.linspace(-1, 1, 8, dtype=torch.float64).view(1, 1, 8)


def order(errors: list[float], counts: list[int]) -> float:
    """The slope of log error against log step length."""
    return float(-np.polyfit(np.log(counts), np.log(errors), 1)[0])


COUNTS = [50, 100, 200, 400]


@pytest.mark.parametrize(("solver", "expected"), [(ddim, 1), (dpm_solver, 2)])
def test_solvers_converge_to_the_odes_solution_at_their_order(solver, expected: int):
    errors = []
    for count in COUNTS:
        data, z = gaussian(count)
        first, last = data.process.schedule.alpha_bar[[0, -1]]
        x_0 = solver.sample(data.process, data.eps, z * data.spread(last), SamplerOptions(clip_denoised=False))
        # The last step, from the first timestep to no noise, is the same on every grid: it belongs to the solution.
        at_first = z * data.spread(first)
        t = torch.zeros(1, dtype=torch.int64)
        exact = data.process.x_0_from_eps(at_first, t, data.eps(at_first, t))
        errors.append((x_0 - exact).abs().max().item())
    assert order(errors, COUNTS) == pytest.approx(expected, abs=0.2)


def invert_error(count: int, grid: ddim.Grid) -> float:
    data, z = gaussian(count)
    last = data.process.schedule.alpha_bar[-1]
    options = SamplerOptions(clip_denoised=False)
    x_T = ddim.invert(data.process, data.eps, z * data.c, options, grid=grid)
    return (x_T - z * data.spread(last)).abs().max().item()


def test_the_aligned_inversion_converges_at_first_order():
    counts = [200, 400, 800, 1600]
    assert order([invert_error(count, "aligned") for count in counts], counts) == pytest.approx(1, abs=0.15)


def test_the_originals_inversion_ends_many_times_further_from_the_odes_solution():
    for count in COUNTS:
        assert invert_error(count, "compat") > 10 * invert_error(count, "aligned")


def round_trip_error(count: int, grid: ddim.Grid) -> float:
    data, z = gaussian(count)
    options = SamplerOptions(clip_denoised=False)
    x_T = ddim.invert(data.process, data.eps, z * data.c, options, grid=grid)
    return (ddim.sample(data.process, data.eps, x_T, options) - z * data.c).abs().max().item()


def test_the_aligned_round_trip_returns_at_first_order_and_closer_than_the_originals():
    # `compat` starts as if the clean image were already at the first timestep, so it walks one step too far.
    aligned = [round_trip_error(count, "aligned") for count in COUNTS]
    compat = [round_trip_error(count, "compat") for count in COUNTS]
    assert order(aligned, COUNTS) == pytest.approx(1, abs=0.1)
    assert all(ours < 0.6 * theirs for ours, theirs in zip(aligned, compat, strict=True))


def test_the_compat_inversion_ends_at_pure_noise_and_the_aligned_one_at_the_last_timestep():
    data, z = gaussian(20)
    options = SamplerOptions(clip_denoised=False)
    t = torch.tensor([data.process.num_timesteps - 1])
    x = z.clone()
    eps = data.eps(x, torch.from_numpy(data.process.schedule.timesteps)[t])
    compat = ddim.invert_step(data.process, data.eps, x, t, options, grid="compat").sample
    torch.testing.assert_close(compat, eps)
    aligned = ddim.invert_step(data.process, data.eps, x, t, options, grid="aligned").sample
    back = ddim.step(data.process, lambda *_: eps, aligned, t, options).sample
    torch.testing.assert_close(back, x)


def test_a_step_of_sampling_undoes_an_aligned_step_of_inversion_with_the_same_eps():
    process = ProcessConfig(num_timesteps=100, variance="fixed_small").build("10")
    x, eps = torch.randn(10, 1, 4, dtype=torch.float64), torch.randn(10, 1, 4, dtype=torch.float64)
    t, options = torch.arange(10), SamplerOptions(clip_denoised=False)
    x_next = ddim.invert_step(process, lambda *_: eps, x, t, options, grid="aligned").sample
    torch.testing.assert_close(ddim.step(process, lambda *_: eps, x_next, t, options).sample, x)


def test_ddim_at_eta_one_has_the_variance_of_ddpm():
    process = ProcessConfig(num_timesteps=100, variance="fixed_small").build("20")
    x, t = torch.zeros(19, 1, 1, dtype=torch.float64), torch.arange(1, 20)
    one = torch.ones_like
    with_noise = ddim.step(process, lambda x, t: 0 * x, x, t, eta=1.0, noise=one).sample
    without = ddim.step(process, lambda x, t: 0 * x, x, t, eta=1.0, noise=torch.zeros_like).sample
    sigma = (with_noise - without).flatten().numpy()
    np.testing.assert_allclose(sigma**2, process.schedule.posterior_variance[1:])


def test_ancestral_sampling_reproduces_the_spread_of_gaussian_data():
    data, _ = gaussian(400, num_train_timesteps=400)
    x_T = torch.randn(4000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    draw = noise.from_generator(torch.Generator().manual_seed(1))
    x_0 = ddpm.sample(data.process, data.eps, x_T, draw, SamplerOptions(clip_denoised=False))
    assert x_0.std().item() == pytest.approx(data.c, rel=4 / math.sqrt(2 * 4000))


@pytest.mark.parametrize("depth", [0, -1, 21])
def test_a_depth_outside_the_chain_is_refused(depth: int):
    process = ProcessConfig(num_timesteps=100, variance="fixed_small").build("20")
    with pytest.raises(ConfigError, match=f"depth={depth}: from 1 to 20"):
        ddim.invert(process, lambda x, t: x, torch.zeros(1, 1, 2), depth=depth)
    with pytest.raises(ConfigError, match=f"depth={depth}: from 1 to 20"):
        ddpm.sample(process, lambda x, t: x, torch.zeros(1, 1, 2), torch.randn_like, depth=depth)


def test_walks_are_generators_of_every_step():
    data, z = gaussian(20)
    down = list(ddim.steps(data.process, data.eps, z, depth=5))
    up = list(ddim.invert_steps(data.process, data.eps, z, depth=5))
    noisy = list(ddpm.steps(data.process, data.eps, z, torch.zeros_like, depth=5))
    fast = list(dpm_solver.steps(data.process, data.eps, z))
    assert [len(walk) for walk in (down, up, noisy, fast)] == [5, 5, 5, 20]
    torch.testing.assert_close(down[-1].sample, ddim.sample(data.process, data.eps, z, depth=5))
