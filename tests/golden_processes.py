"""The golden processes with their analytic model, and a Gaussian data distribution whose eps is known exactly."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import golden_values
from rediffuse.diffusion.config import ProcessConfig
from rediffuse.diffusion.process import GaussianDiffusion, SamplerOptions

NAMES = ("eps_small", "eps_large", "eps_learned", "eps_range", "x0_kl", "xprev", "full")
PREDICTIONS = {"EPSILON": "eps", "START_X": "x_0", "PREVIOUS_X": "x_prev"}


@dataclass(frozen=True)
class GoldenProcess:
    name: str
    process: GaussianDiffusion
    options: SamplerOptions
    loss_type: str
    values: dict[str, Tensor]

    def model(self, x: Tensor, timesteps: Tensor) -> Tensor:
        """The analytic network of the golden values' README."""
        tt = timesteps.float().view(-1, *[1] * (x.ndim - 1)) / 1000
        eps = x.tanh() * (3 * tt).cos() + 0.1 * x
        return torch.cat([eps, (2 * x + tt).sin()], dim=1) if self.process.learns_variance else eps

    def noise(self, kind: str) -> "Draws":
        return Draws(f"process_{self.name}.{kind}")

    def error(self, key: str, given: Tensor) -> float:
        return golden_values.relative_error(given, self.values[key])


class Draws:
    """A Noise that returns the golden arrays in order."""

    def __init__(self, name: str) -> None:
        self.name, self.count = name, 0

    def __call__(self, x: Tensor) -> Tensor:
        self.count += 1
        return golden_values.rnd(f"{self.name}.{self.count - 1}", *x.shape)


def load(name: str) -> GoldenProcess:
    meta, values = golden_values.load(f"process_{name}")
    config: dict[str, Any] = {
        "schedule": meta["schedule"],
        "num_timesteps": meta["T"],
        "prediction": PREDICTIONS[meta["mean"]],
        "variance": meta["var"].lower(),
        "rescale_timesteps": meta["rescale_timesteps"],
    }
    return GoldenProcess(
        name=name,
        process=ProcessConfig(**config).build(meta["respacing"]),
        options=SamplerOptions(clip_denoised=meta["clip"]),
        loss_type=meta["loss"].lower(),
        values=values,
    )


@pytest.fixture(params=NAMES)
def golden(request: pytest.FixtureRequest) -> GoldenProcess:
    return load(request.param)


@pytest.fixture(params=[name for name in NAMES if name != "full"])
def golden_loop(request: pytest.FixtureRequest) -> GoldenProcess:
    """The processes of at most 50 steps, which also have golden values of complete sampling loops."""
    return load(request.param)


class GaussianData:
    """x_0 ~ N(0, c^2) in every dimension: eps is linear in x_t, and the probability-flow ODE has a closed solution."""

    def __init__(self, c: float, process: GaussianDiffusion) -> None:
        self.c, self.process = c, process
        train_length = process.schedule.num_train_timesteps
        self._alpha_bar = torch.from_numpy(
            ProcessConfig(num_timesteps=train_length).build().schedule.alpha_bar  # by the timestep the network is told
        )

    def eps(self, x: Tensor, timesteps: Tensor) -> Tensor:
        if timesteps.is_floating_point():  # between timesteps, as sigmas give them
            log_sigma = (1 / self._alpha_bar - 1).log() / 2
            at = np.interp(timesteps.double().numpy(), np.arange(len(log_sigma)), log_sigma.numpy())
            alpha_bar = 1 / (1 + torch.from_numpy(at).mul(2).exp())
        else:
            alpha_bar = self._alpha_bar[timesteps]
        alpha_bar = alpha_bar.view(-1, *[1] * (x.ndim - 1))
        return (1 - alpha_bar).sqrt() * x / (alpha_bar * self.c**2 + 1 - alpha_bar)

    def spread(self, alpha_bar: float) -> float:
        """The standard deviation of x_t; along the ODE, x_t divided by it is constant."""
        return (alpha_bar * self.c**2 + 1 - alpha_bar) ** 0.5
