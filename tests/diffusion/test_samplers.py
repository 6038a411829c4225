import math
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from golden_processes import GaussianData, GoldenProcess
from rediffuse.diffusion import guidance, noise, trajectory
from rediffuse.diffusion.config import ProcessConfig
from rediffuse.diffusion.process import SamplerOptions
from rediffuse.diffusion.samplers import SAMPLERS, Path, Step, get_sampler, register_sampler
from rediffuse.diffusion.solvers.ddim import ddim_inverse_update, ddim_sigma, ddim_update
from rediffuse.diffusion.solvers.ddpm import ddpm_update
from rediffuse.dire.settings import DireSettings
from rediffuse.errors import ConfigError
from rediffuse.sampling.config import SamplingSettings

DEPTHS = [(None, ""), (5, "_real5")]
SOLVERS = sorted(name for name, sampler in SAMPLERS.items() if sampler.can_invert)
UNCLIPPED = SamplerOptions(clip_denoised=False)


def towards_zero(x, timesteps):
    return -0.3 * x


# --- equal to the original ----------------------------------------------------------------------------------------


def test_one_ddpm_step_equals_the_original(golden: GoldenProcess):
    v, process = golden.values, golden.process
    p = process.predict(golden.model, v["xt"], v["ts"], golden.options)
    guided = guidance.condition_mean(process, towards_zero, p, v["xt"], v["ts"])
    assert golden.error("p_sample", ddpm_update(p, v["ts"], golden.noise("z")(v["xt"]))) < 2e-6
    assert golden.error("p_sample_guided", ddpm_update(guided, v["ts"], golden.noise("z")(v["xt"]))) < 2e-6


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_one_ddim_step_equals_the_original_and_is_finite_where_it_was_not(golden: GoldenProcess, eta: float):
    v, at = golden.values, golden.process.schedule.at
    x_0 = golden.process.predict_x_0(golden.model, v["xt"], v["ts"], golden.options)
    eps = golden.process.eps_from_x_0(v["xt"], v["ts"], x_0)
    alpha_bar, alpha_bar_prev = (at(name, v["ts"], v["xt"]) for name in ("alpha_bar", "alpha_bar_prev"))
    sigma = ddim_sigma(eta, alpha_bar, alpha_bar_prev)
    x_prev = ddim_update(x_0, eps, alpha_bar_prev, sigma, golden.noise("z")(v["xt"]))
    assert golden.error(f"ddim_eta{eta}", x_prev) < 2e-6


def test_guided_ddim_and_inversion_steps_equal_the_original(golden: GoldenProcess):
    v, process = golden.values, golden.process
    at = process.schedule.at
    x_0 = process.predict_x_0(golden.model, v["xt"], v["ts"], golden.options)
    guided = guidance.condition_score(process, towards_zero, x_0, v["xt"], v["ts"])
    eps, guided_eps = (process.eps_from_x_0(v["xt"], v["ts"], value) for value in (x_0, guided))
    x_prev = ddim_update(guided, guided_eps, at("alpha_bar_prev", v["ts"], v["xt"]))
    x_next = ddim_update(x_0, eps, at("alpha_bar_next", v["ts"], v["xt"]))
    assert golden.error("ddim_guided", x_prev) < 2e-6
    assert golden.error("ddim_reverse", x_next) < 2e-6


def test_whole_sampling_loops_equal_the_original(golden_loop: GoldenProcess):
    g = golden_loop
    drawing = SamplerOptions(clip_denoised=g.options.clip_denoised, noise=g.noise("loop"))
    assert (
        g.error("p_loop", trajectory.last(trajectory.sample("ddpm", g.process, g.model, g.values["xt"], drawing)))
        < 1e-5
    )
    assert (
        g.error("ddim_loop", trajectory.last(trajectory.sample("ddim", g.process, g.model, g.values["xt"], g.options)))
        < 1e-5
    )


@pytest.mark.parametrize(("depth", "suffix"), DEPTHS)
def test_inversion_and_reconstruction_equal_the_original(golden_loop: GoldenProcess, depth: int | None, suffix: str):
    g = golden_loop
    x_T = trajectory.last(
        trajectory.invert("ddim", g.process, g.model, g.values["x0"], g.options, grid="compat", depth=depth)
    )
    assert g.error("ddim_invert" + suffix, x_T) < 1e-5
    x_T = g.values["ddim_invert" + suffix]
    x_0_hat = trajectory.last(trajectory.sample("ddim", g.process, g.model, x_T, g.options, depth=depth))
    assert g.error("ddim_roundtrip" + suffix, x_0_hat) < 1e-5


# --- order of convergence on Gaussian data ------------------------------------------------------------------------


def gaussian(num_steps: int, num_train_timesteps: int = 8000) -> tuple[GaussianData, Tensor]:
    process = ProcessConfig(num_timesteps=num_train_timesteps, variance="fixed_small").build(str(num_steps))
    return GaussianData(0.5, process), torch.linspace(-1, 1, 8, dtype=torch.float64).view(1, 1, 8)


def order(errors: list[float], counts: list[int]) -> float:
    """The slope of log error against log step length."""
    return float(-np.polyfit(np.log(counts), np.log(errors), 1)[0])


COUNTS = [50, 100, 200, 400]
ORDERS = {"ddim": 1, "dpm_solver": 2, "heun": 2}


def test_the_order_of_every_deterministic_sampler_is_known_here():
    assert sorted(ORDERS) == SOLVERS


@pytest.mark.parametrize("solver", SOLVERS)
def test_solvers_converge_to_the_odes_solution_at_their_order(solver: str):
    errors = []
    for count in COUNTS:
        data, z = gaussian(count)
        first, last = data.process.schedule.alpha_bar[[0, -1]]
        x_0 = trajectory.last(trajectory.sample(solver, data.process, data.eps, z * data.spread(last), UNCLIPPED))
        # The last step, from the first timestep to no noise, is the same on every grid: it belongs to the solution.
        at_first = z * data.spread(first)
        t = torch.zeros(1, dtype=torch.int64)
        exact = data.process.x_0_from_eps(at_first, t, data.eps(at_first, t))
        errors.append((x_0 - exact).abs().max().item())
    assert order(errors, COUNTS) == pytest.approx(ORDERS[solver], abs=0.2)


@pytest.mark.parametrize("solver", SOLVERS)
def test_both_directions_converge_at_their_order_between_two_noise_levels(solver: str):
    counts = [10, 20, 40, 80]
    errors: dict[str, list[float]] = {"inversion": [], "sampling": []}
    for count in counts:
        sigmas = np.geomspace(0.05, 20, count)
        spec = "sigmas:" + ",".join(map(str, sigmas))
        process = ProcessConfig(num_timesteps=8000, variance="fixed_small").build(spec)
        data, z = GaussianData(0.5, process), torch.linspace(-1, 1, 8, dtype=torch.float64).view(1, 1, 8)
        low, *_, high = (data.spread(alpha_bar) for alpha_bar in process.schedule.alpha_bar)
        predict = trajectory.Predictor(process=process, network=data.eps, options=UNCLIPPED)
        path = trajectory.inversion_path(process, "aligned")[1:]  # without the clean image
        for direction, way, start, end in (("inversion", path, low, high), ("sampling", path[::-1], high, low)):
            x = trajectory.last(SAMPLERS[solver].function(predict, z * start, way))
            errors[direction].append((x - z * end).abs().max().item())
    for direction in errors:
        assert order(errors[direction], counts) == pytest.approx(ORDERS[solver], abs=0.2), direction


def invert_error(count: int, grid: trajectory.Grid) -> float:
    data, z = gaussian(count)
    last = data.process.schedule.alpha_bar[-1]
    x_T = trajectory.last(trajectory.invert("ddim", data.process, data.eps, z * data.c, UNCLIPPED, grid=grid))
    return (x_T - z * data.spread(last)).abs().max().item()


def test_the_aligned_inversion_converges_at_first_order():
    counts = [200, 400, 800, 1600]
    assert order([invert_error(count, "aligned") for count in counts], counts) == pytest.approx(1, abs=0.15)


def test_the_originals_inversion_ends_many_times_further_from_the_odes_solution():
    for count in COUNTS:
        assert invert_error(count, "compat") > 10 * invert_error(count, "aligned")


def round_trip_error(count: int, grid: trajectory.Grid, solver: str = "ddim") -> float:
    data, z = gaussian(count)
    x_T = trajectory.last(trajectory.invert(solver, data.process, data.eps, z * data.c, UNCLIPPED, grid=grid))
    return (
        (trajectory.last(trajectory.sample(solver, data.process, data.eps, x_T, UNCLIPPED)) - z * data.c)
        .abs()
        .max()
        .item()
    )


def test_the_aligned_round_trip_returns_at_first_order_and_closer_than_the_originals():
    # `compat` starts as if the clean image were already at the first timestep, so it goes one step too far.
    aligned = [round_trip_error(count, "aligned") for count in COUNTS]
    compat = [round_trip_error(count, "compat") for count in COUNTS]
    assert order(aligned, COUNTS) == pytest.approx(1, abs=0.1)
    assert all(ours < 0.6 * theirs for ours, theirs in zip(aligned, compat, strict=True))


@pytest.mark.parametrize("solver", ["dpm_solver", "heun"])
def test_the_round_trip_of_a_second_order_sampler_returns_at_second_order(solver: str):
    errors = [round_trip_error(count, "aligned", solver) for count in COUNTS]
    assert order(errors, COUNTS) > 1.8
    assert errors[-1] < 0.2 * round_trip_error(COUNTS[-1], "aligned")


def test_heun_is_stable_from_the_noisiest_level_of_the_cosine_schedule():
    """There sigma is 20,291, and the next of 20 levels has 13: the mean of the two slopes would err by more than 1."""
    process = ProcessConfig(schedule="cosine", variance="fixed_small").build("20")
    alpha_bar_of = torch.from_numpy(ProcessConfig(schedule="cosine").build().schedule.alpha_bar)

    def eps(x: Tensor, timesteps: Tensor) -> Tensor:
        alpha_bar = alpha_bar_of[timesteps].view(-1, 1)
        return (1 - alpha_bar).sqrt() * x / (alpha_bar * 0.25 + 1 - alpha_bar)

    x_T = torch.linspace(-2, 2, 8, dtype=torch.float64).view(1, 8)
    x_0 = trajectory.last(trajectory.sample("heun", process, eps, x_T, UNCLIPPED))
    assert (x_0 - 0.5 * x_T).abs().max().item() < 0.05


# --- the two grids of an inversion --------------------------------------------------------------------------------


def test_the_compat_inversion_ends_at_pure_noise_and_the_aligned_one_at_the_last_timestep():
    data, _ = gaussian(20)
    compat, aligned = (trajectory.inversion_path(data.process, grid) for grid in ("compat", "aligned"))
    assert (compat[0].t, compat[-1].t, compat[-1].alpha_bar.item()) == (0, None, 0)
    assert (aligned[0].t, aligned[0].alpha_bar.item(), aligned[-1].t) == (None, 1, 19)
    assert trajectory.sampling_path(data.process) == aligned[::-1]


def test_a_step_of_sampling_undoes_an_aligned_step_of_inversion_with_the_same_eps():
    process = ProcessConfig(num_timesteps=100, variance="fixed_small").build("10")
    x, eps = torch.randn(2, 1, 4, dtype=torch.float64), torch.randn(2, 1, 4, dtype=torch.float64)
    for start, end in pairwise(trajectory.inversion_path(process, "aligned")):
        x_next = ddim_inverse_update(x, eps, start.alpha_bar, end.alpha_bar)
        x_0 = process.x_0_from_eps(x_next, end.t, eps)
        torch.testing.assert_close(ddim_update(x_0, eps, start.alpha_bar), x)


def test_a_flow_along_straight_lines_is_inverted_exactly():
    process = ProcessConfig(num_timesteps=100, prediction="flow", variance="fixed_small").build("10")
    x_0, eps = torch.randn(2, 1, 4, dtype=torch.float64), torch.randn(2, 1, 4, dtype=torch.float64)
    steps = trajectory.invert("ddim", process, lambda x, t: eps - x_0, x_0, UNCLIPPED)
    for t, step in enumerate(steps):
        torch.testing.assert_close(step.x, process.q_sample(x_0, t, eps))


def test_a_step_of_inversion_turns_x_towards_v_by_the_angle_between_the_levels():
    """DDIM with v as in arXiv:2202.00512, Appendix D, where sqrt(alpha_bar) is the cosine of a level's angle."""
    process = ProcessConfig(num_timesteps=100, prediction="v", variance="fixed_small").build("10")
    x, v = torch.randn(2, 1, 4, dtype=torch.float64), torch.randn(2, 1, 4, dtype=torch.float64)
    angles = [level.signal.acos() for level in trajectory.inversion_path(process, "aligned")]
    steps = trajectory.invert("ddim", process, lambda x, t: v, x, UNCLIPPED)
    for step, (start, end) in zip(steps, pairwise(angles), strict=True):
        x = (end - start).cos() * x + (end - start).sin() * v
        torch.testing.assert_close(step.x, x)


@pytest.mark.parametrize("solver", SOLVERS)
def test_with_equal_eps_everywhere_the_round_trip_is_exact(solver: str):
    process = ProcessConfig(num_timesteps=100, variance="fixed_small").build("10")
    x_0, eps = torch.randn(2, 1, 4, dtype=torch.float64), torch.randn(2, 1, 4, dtype=torch.float64)
    x_T = trajectory.last(trajectory.invert(solver, process, lambda x, t: eps, x_0, UNCLIPPED))
    torch.testing.assert_close(
        trajectory.last(trajectory.sample(solver, process, lambda x, t: eps, x_T, UNCLIPPED)), x_0
    )


# --- noise ---------------------------------------------------------------------------------------------------------


def test_ddim_at_eta_one_has_the_variance_of_ddpm():
    schedule = ProcessConfig(num_timesteps=100, variance="fixed_small").build("20").schedule
    alpha_bar, alpha_bar_prev = (torch.from_numpy(values) for values in (schedule.alpha_bar, schedule.alpha_bar_prev))
    sigma = ddim_sigma(1.0, alpha_bar, alpha_bar_prev)
    np.testing.assert_allclose(sigma.numpy() ** 2, schedule.posterior_variance)


def test_ddim_draws_noise_only_where_eta_asks_for_it():
    data, z = gaussian(20)
    still = trajectory.last(trajectory.sample("ddim", data.process, data.eps, z))
    draws = []

    def ones(x: Tensor) -> Tensor:
        draws.append(1)
        return torch.ones_like(x)

    noisy = trajectory.last(trajectory.sample("ddim", data.process, data.eps, z, SamplerOptions(eta=0.5, noise=ones)))
    assert len(draws) == 20
    assert (noisy - still).abs().max() > 0.01


def test_ancestral_sampling_reproduces_the_spread_of_gaussian_data():
    data, _ = gaussian(400, num_train_timesteps=400)
    x_T = torch.randn(4000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    draw = noise.from_generator(torch.Generator().manual_seed(1))
    options = SamplerOptions(clip_denoised=False, noise=draw)
    x_0 = trajectory.last(trajectory.sample("ddpm", data.process, data.eps, x_T, options))
    assert x_0.std().item() == pytest.approx(data.c, rel=4 / math.sqrt(2 * 4000))


# --- the shape that all share -------------------------------------------------------------------------------------


def test_a_new_sampler_is_one_function_that_flags_and_settings_then_know():
    @register_sampler("midpoint")
    def midpoint(predict: trajectory.Predictor, x: Tensor, path: Path) -> Iterator[Step]:
        """DDIM's steps, every two of them as one: eps at the level between them moves x over both."""
        for start, between, end in zip(path[:-2:2], path[1:-1:2], path[2::2], strict=True):
            eps = predict(x, between if start.t is None else start).eps
            p = predict(ddim_inverse_update(x, eps, start.alpha_bar, between.alpha_bar), between)
            x = ddim_inverse_update(x, p.eps, start.alpha_bar, end.alpha_bar)
            yield Step(x, p.x_0)

    try:
        assert SamplingSettings(sampler="midpoint", steps=20).sampler == "midpoint"
        settings = DireSettings(image_size=8, model_sha256="", solver="midpoint", grid="aligned")
        process = ProcessConfig(variance="fixed_small").build(settings.respacing)
        assert trajectory.num_network_calls("midpoint", process, trajectory.sampling_path(process)) == 20
        data, z = GaussianData(0.5, process), torch.linspace(-1, 1, 8, dtype=torch.float64).view(1, 8)
        x_T = trajectory.last(trajectory.invert("midpoint", process, data.eps, z * data.c, UNCLIPPED))
        x_0 = trajectory.last(trajectory.sample("midpoint", process, data.eps, x_T, UNCLIPPED))
        assert (x_0 - z * data.c).abs().max().item() < 0.1
    finally:
        del SAMPLERS["midpoint"]


def test_the_registry_needs_no_torch():
    code = "import rediffuse.diffusion.samplers as s, sys; print(sorted(s.SAMPLERS), 'torch' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == "['ddim', 'ddpm', 'dpm_solver', 'heun'] False\n"


def test_an_unknown_sampler_is_refused_with_those_that_can_be_given_and_the_nearest():
    with pytest.raises(
        ConfigError, match=r"^sampler=dppm: ddim, ddpm, dpm_solver, heun are allowed; did you mean ddpm\?$"
    ):
        get_sampler("sampler", "dppm")
    with pytest.raises(ConfigError, match=r"^solver=ddpm: ddim, dpm_solver, heun are allowed"):
        get_sampler("solver", "ddpm", inverts=True)


@pytest.mark.parametrize("depth", [0, -1, 21])
def test_a_depth_outside_the_chain_is_refused(depth: int):
    process = ProcessConfig(num_timesteps=100, variance="fixed_small").build("20")
    for direction, sampler in ((trajectory.invert, "ddim"), (trajectory.sample, "ddpm")):
        with pytest.raises(ConfigError, match=f"depth={depth}: from 1 to 20"):
            trajectory.last(direction(sampler, process, lambda x, t: x, torch.zeros(1, 1, 2), depth=depth))


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_walks_are_generators_of_every_step(sampler: str):
    data, z = gaussian(20)
    options = SamplerOptions(noise=torch.zeros_like)
    steps = list(trajectory.sample(sampler, data.process, data.eps, z, options, depth=5))
    assert len(steps) == 5
    again = trajectory.last(trajectory.sample(sampler, data.process, data.eps, z, options, depth=5))
    torch.testing.assert_close(steps[-1].x, again)
    if SAMPLERS[sampler].can_invert:
        assert len(list(trajectory.invert(sampler, data.process, data.eps, z, depth=5))) == 5


def test_a_walk_leaves_gradients_on_for_whoever_reads_its_steps():
    data, z = gaussian(20)
    for step in trajectory.sample("ddim", data.process, data.eps, z, depth=2):
        assert torch.is_grad_enabled()
        assert not step.x.requires_grad


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_network_calls_are_those_that_happen(sampler: str):
    process = ProcessConfig(schedule="cosine", variance="learned_range").build("20")
    calls = []

    def network(x: Tensor, timesteps: Tensor) -> Tensor:
        calls.append(timesteps)
        return torch.zeros(len(x), 2 * x.shape[1], *x.shape[2:])

    options = SamplerOptions(noise=torch.zeros_like)
    trajectory.last(trajectory.sample(sampler, process, network, torch.zeros(3, 1, 2), options, depth=7))
    assert trajectory.num_network_calls(sampler, process, trajectory.sampling_path(process, 7)) == len(calls)
    assert len(calls) == (13 if sampler == "heun" else 7)
    assert all(timesteps.shape == (3,) for timesteps in calls)


class Operations(TorchDispatchMode):
    """Notes what torch is asked to do with tensors on a device: all but single numbers on the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if any(isinstance(value, Tensor) and value.ndim for value in (*args, result)):
            self.names.append(func.overloadpacket.__name__)
        return result


TRANSFERS = {"_to_copy", "copy_", "clone", "_local_scalar_dense", "full", "zeros", "empty", "arange", "index"}


@pytest.mark.parametrize("sampler", SOLVERS)
def test_a_step_copies_casts_and_transfers_nothing(sampler: str):
    """Coefficients are numbers to torch, and the timesteps a view of a table: all there is to do is arithmetic."""
    process = ProcessConfig(variance="fixed_small").build("20")

    def network(x: Tensor, timesteps: Tensor) -> Tensor:
        return x * 0.1

    x_T = torch.ones(4, 3, 8, 8)
    trajectory.last(trajectory.sample(sampler, process, network, x_T))  # tables are made once
    steps = trajectory.sample(sampler, process, network, x_T)
    for _ in range(5):
        with Operations() as operations:
            next(steps)
        assert operations.names
        assert not set(operations.names) & TRANSFERS, operations.names
