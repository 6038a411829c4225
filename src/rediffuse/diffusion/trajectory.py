"""Run a sampler along a path of noise levels of a process: sampling and inversion."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from rediffuse.diffusion.guidance import condition_mean, condition_score
from rediffuse.diffusion.process import DEFAULT_OPTIONS, Denoised, GaussianDiffusion, Model, SamplerOptions
from rediffuse.diffusion.samplers import SAMPLERS, Level, Path, Step
from rediffuse.errors import ConfigError

Grid = Literal["compat", "aligned"]


def sample(
    sampler: str,
    process: GaussianDiffusion,
    network: Model,
    x_T: Tensor,
    options: SamplerOptions = DEFAULT_OPTIONS,
    *,
    depth: int | None = None,
) -> Iterator[Step]:
    """Run a sampler from noise x_T (N, C, ...) to images; yields its steps, the last of which holds x_0 as `x`.

    Args:
        sampler: a name in `SAMPLERS`.
        process: the diffusion process on the timesteps to use.
        network: see `process.Model`.
        x_T: standard normal noise, or x at the level where the path starts.
        options: clipping, guidance, conditioning, eta and noise.
        depth: number of steps before x_0 at which to start; None starts at the noisiest level.

    Raises:
        ConfigError: the chain is shorter than `depth`, or `depth` is below 1.
    """
    return _run(sampler, process, network, x_T, options, sampling_path(process, depth))


def invert(
    sampler: str,
    process: GaussianDiffusion,
    network: Model,
    x_0: Tensor,
    options: SamplerOptions = DEFAULT_OPTIONS,
    *,
    grid: Grid = "aligned",
    depth: int | None = None,
) -> Iterator[Step]:
    """Run a sampler from images x_0 (N, C, ...) to noise; yields its steps, the last of which holds x_T as `x`.

    Args:
        sampler: a name in `SAMPLERS`; the sampler must be able to invert.
        process: see `sample`.
        network: see `sample`.
        x_0: the images.
        options: see `sample`; without eta.
        grid: see `inversion_path`.
        depth: number of steps; None for the whole chain.

    Raises:
        ConfigError: as `sample`.
    """
    assert SAMPLERS[sampler].can_invert, sampler
    assert options.eta == 0, "inversion must be deterministic (eta = 0)"
    return _run(sampler, process, network, x_0, options, inversion_path(process, grid, depth))


def last(steps: Iterator[Step]) -> Tensor:
    """The x (N, C, ...) of the last step."""
    *_, step = steps
    return step.x


def sampling_path(process: GaussianDiffusion, depth: int | None = None) -> Path:
    """The levels from the noisiest one, or from `depth` steps before the clean image, to the clean image."""
    return inversion_path(process, "aligned", depth)[::-1]


def inversion_path(process: GaussianDiffusion, grid: Grid, depth: int | None = None) -> Path:
    """The levels of an inversion of `depth` steps, or of the whole chain.

    `aligned` is the reversed sampling path: from the clean image through the level of every timestep to the noisiest.

    `compat` is the path of guided-diffusion and DIRE: the image, which has no noise, is treated as x at the first
    timestep, and the last step ends at alpha_bar = 0.

    Raises:
        ConfigError: the chain is shorter than `depth`, or `depth` is below 1.
    """
    alpha_bar = torch.from_numpy(process.schedule.alpha_bar)
    levels = [Level(value, index) for index, value in enumerate(alpha_bar)]
    if grid == "compat":
        path = [*levels, Level(alpha_bar.new_zeros(()), None)]
    else:
        path = [Level(alpha_bar.new_ones(()), None), *levels]
    return path[: num_steps(process, depth) + 1]


def num_steps(process: GaussianDiffusion, depth: int | None) -> int:
    """The number of steps for `depth`, where None is the whole chain.

    Raises:
        ConfigError: the chain is shorter than `depth`, or `depth` is below 1.
    """
    if depth is None:
        return process.num_timesteps
    if not 1 <= depth <= process.num_timesteps:
        raise ConfigError(f"depth={depth}: from 1 to {process.num_timesteps}, the number of timesteps, are allowed")
    return depth


def num_network_calls(sampler: str, process: GaussianDiffusion, path: Path) -> int:
    """How often the sampler calls the network along the path, counted by running it on one number."""
    num_calls = 0

    def counting(x_t: Tensor, timesteps: Tensor) -> Tensor:
        nonlocal num_calls
        num_calls += 1
        return x_t.new_zeros(1, 1 + process.learns_variance)

    for _ in _run(sampler, process, counting, torch.zeros(1, 1), SamplerOptions(noise=torch.zeros_like), path):
        pass
    return num_calls


class Prediction:
    """The network's prediction from x at a level; `eps` is computed when it is first used."""

    def __init__(self, process: GaussianDiffusion, x: Tensor, index: int, x_0: Tensor) -> None:
        self._process, self._x, self._index = process, x, index
        self.x_0 = x_0
        """(N, C, ...): guided and clipped according to the options."""

    @cached_property
    def eps(self) -> Tensor:
        """(N, C, ...): the eps that corresponds to `x_0`."""
        return self._process.eps_from_x_0(self._x, self._index, self.x_0)

    def eps_from(self, start: Level) -> Tensor:
        """The eps of a step from `start`, the level of x, if the network was given the timestep of the step's end.

        A prediction of v or flow is read at the level of x, as in diffusers' `DDIMInverseScheduler`. So a flow along
        straight lines is inverted exactly.
        """
        alpha_bar = torch.from_numpy(self._process.schedule.alpha_bar)[self._index]
        match self._process.prediction:
            case "v":
                v = alpha_bar.sqrt() * self.eps - (1 - alpha_bar).sqrt() * self.x_0
                return start.signal * v + start.noise * self._x
            case "flow":
                return (self._x + start.signal * (self.eps - self.x_0)) / (start.signal + start.noise)
            case _:
                return self.eps


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """The predictions of a network on a process, with a sampler's options."""

    process: GaussianDiffusion
    network: Model
    options: SamplerOptions

    def __call__(self, x: Tensor, level: Level) -> Prediction:
        """The prediction from x (N, C, ...) at the level's timestep; guidance shifts the score."""
        t, options = _timestep(level), self.options
        x_0 = self.process.predict_x_0(self.network, x, t, options)
        if options.guidance is not None:
            x_0 = condition_score(self.process, options.guidance, x_0, x, t, options.conditioning)
        return Prediction(self.process, x, t, x_0)

    def posterior(self, x: Tensor, level: Level) -> Denoised:
        """p(x_{t-1} | x_t); guidance shifts the mean."""
        t, options = _timestep(level), self.options
        p = self.process.predict(self.network, x, t, options)
        if options.guidance is not None:
            p = condition_mean(self.process, options.guidance, p, x, t, options.conditioning)
        return p

    def noise(self, x: Tensor) -> Tensor:
        """Standard normal noise like x."""
        assert self.options.noise is not None, "a sampler drew noise, and the options have none"
        return self.options.noise(x)


def _timestep(level: Level) -> int:
    assert level.t is not None, "this level has no timestep for the network"
    return level.t


@torch.no_grad()
def _run(
    sampler: str, process: GaussianDiffusion, network: Model, x: Tensor, options: SamplerOptions, path: Path
) -> Iterator[Step]:
    predict = Predictor(process=process, network=network, options=options)
    yield from SAMPLERS[sampler].function(predict, x, path)
