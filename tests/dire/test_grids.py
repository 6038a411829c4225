"""Inversion against the exact solution: for Gaussian data N(0, c^2) the probability-flow ODE has one.

At alpha_bar the data have variance v = alpha_bar c^2 + 1 - alpha_bar, eps(x) = sqrt(1 - alpha_bar) x / v, and the ODE
keeps x / sqrt(v) constant.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from rediffuse.diffusion import trajectory
from rediffuse.diffusion.config import ProcessConfig, ScheduleName
from rediffuse.diffusion.process import GaussianDiffusion, SamplerOptions
from rediffuse.dire.settings import Grid

STEP_COUNTS = (50, 100, 200)
X_0 = torch.full((1, 1, 1, 1), 0.7, dtype=torch.float64)
UNCLIPPED = SamplerOptions(clip_denoised=False)


def variance(alpha_bar: Tensor, c: float) -> Tensor:
    return alpha_bar * c**2 + 1 - alpha_bar


def exact_eps(c: float, schedule: ScheduleName) -> Callable[[Tensor, Tensor], Tensor]:
    alpha_bars = torch.from_numpy(ProcessConfig(schedule=schedule).build().schedule.alpha_bar)

    def model(x_t: Tensor, timesteps: Tensor) -> Tensor:
        alpha_bar = alpha_bars[timesteps].reshape(-1, 1, 1, 1)
        return (1 - alpha_bar).sqrt() * x_t / variance(alpha_bar, c)

    return model


def exact_solution(alpha_bar: float, c: float) -> Tensor:
    return X_0 * variance(torch.tensor(alpha_bar, dtype=torch.float64), c).sqrt() / c


def process(schedule: ScheduleName, steps: int) -> GaussianDiffusion:
    return ProcessConfig(schedule=schedule, variance="fixed_small").build(f"ddim{steps}")


def inversion_error(grid: Grid, schedule: ScheduleName, c: float, steps: int) -> float:
    """Relative error of x_T at the noise level at which the sampler starts."""
    chain = process(schedule, steps)
    x_T = trajectory.last(trajectory.invert("ddim", chain, exact_eps(c, schedule), X_0, UNCLIPPED, grid=grid))
    return abs(x_T / exact_solution(chain.schedule.alpha_bar[-1], c) - 1).item()


def round_trip_error(grid: Grid, schedule: ScheduleName, c: float, steps: int, depth: int | None = None) -> float:
    chain, model = process(schedule, steps), exact_eps(c, schedule)
    x_T = trajectory.last(trajectory.invert("ddim", chain, model, X_0, UNCLIPPED, grid=grid, depth=depth))
    return abs(trajectory.last(trajectory.sample("ddim", chain, model, x_T, UNCLIPPED, depth=depth)) / X_0 - 1).item()


def order(errors: Sequence[float]) -> float:
    """The fitted p of error = const * steps^-p."""
    return -np.polyfit(np.log(STEP_COUNTS), np.log(errors), 1)[0]


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("c", [0.3, 2.0])
def test_aligned_inversion_converges_to_the_ode_at_first_order(schedule: ScheduleName, c: float) -> None:
    errors = [inversion_error("aligned", schedule, c, steps) for steps in STEP_COUNTS]
    assert order(errors) == pytest.approx(1, abs=0.15)
    assert errors[-1] < 0.02


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("c", [0.3, 2.0])
def test_aligned_round_trip_returns_at_first_order(schedule: ScheduleName, c: float) -> None:
    errors = [round_trip_error("aligned", schedule, c, steps) for steps in STEP_COUNTS]
    assert order(errors) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("c", [0.3, 0.5, 2.0])
@pytest.mark.parametrize("steps", [20, 100])
def test_aligned_returns_closer_than_compat(schedule: ScheduleName, c: float, steps: int) -> None:
    for depth in (None, steps // 2):
        aligned, compat = (round_trip_error(grid, schedule, c, steps, depth) for grid in ("aligned", "compat"))
        assert aligned < compat


def test_compat_ends_one_stretch_above_where_the_sampler_starts() -> None:
    chain, model = process("cosine", 20), exact_eps(2.0, "cosine")
    one_step = {
        grid: trajectory.last(trajectory.invert("ddim", chain, model, X_0, UNCLIPPED, grid=grid, depth=1))
        for grid in ("aligned", "compat")
    }
    first, second = chain.schedule.alpha_bar[:2]
    assert torch.allclose(one_step["aligned"], exact_solution(first, 2.0), rtol=1e-3)
    assert torch.allclose(one_step["compat"], exact_solution(second, 2.0), rtol=2e-2)


def test_compat_at_full_depth_ends_at_alpha_bar_0_and_holds_eps_alone() -> None:
    chain, model = process("cosine", 20), exact_eps(2.0, "cosine")
    before = trajectory.last(trajectory.invert("ddim", chain, model, X_0, UNCLIPPED, grid="compat", depth=19))
    x_T = trajectory.last(trajectory.invert("ddim", chain, model, X_0, UNCLIPPED, grid="compat"))
    assert torch.allclose(x_T, model(before, torch.from_numpy(chain.schedule.timesteps[-1:])))
