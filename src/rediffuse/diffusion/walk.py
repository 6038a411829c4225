"""A sampler at work: its path along the noise levels of a process, and what it asks of the network on the way."""

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
    """From noise x_T (N, C, ...) to images, one step after the other; the last one's `x` is x_0.

    Args:
        sampler: a name in `SAMPLERS`.
        process: the diffusion process, on the timesteps to be used.
        network: see `process.Model`.
        x_T: standard normal, or x at the level where the path starts.
        options: clipping, guidance, conditioning, eta and noise.
        depth: start at that many steps above x_0 instead of at the top.

    Raises:
        ConfigError: the chain is shorter than `depth`, or `depth` is below 1.
    """
    return _walk(sampler, process, network, x_T, options, sampling_path(process, depth))


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
    """From images x_0 (N, C, ...) towards noise by the probability-flow ODE; the last step's `x` is x_T.

    Args:
        sampler: a name in `SAMPLERS` of one that can invert.
        grid: see `inversion_path`.
        depth: stop after that many steps.
        process, network, options: see `sample`.

    Raises:
        ConfigError: as `sample`.
    """
    assert SAMPLERS[sampler].can_invert, sampler
    assert options.eta == 0, "only the deterministic path leads from an image to its noise"
    return _walk(sampler, process, network, x_0, options, inversion_path(process, grid, depth))


def last(steps: Iterator[Step]) -> Tensor:
    """The x (N, C, ...) that a walk leads to."""
    *_, step = steps
    return step.x


def sampling_path(process: GaussianDiffusion, depth: int | None = None) -> Path:
    """The levels of the process from the noisiest, or from `depth` steps above the image, down to the clean image."""
    return inversion_path(process, "aligned", depth)[::-1]


def inversion_path(process: GaussianDiffusion, grid: Grid, depth: int | None = None) -> Path:
    """The levels of an inversion of `depth` steps, or of the whole chain.

    `aligned` is the sampling path, reversed: from the clean image over the level of every timestep to the noisiest.

    `compat` is guided-diffusion's and DIRE's: the image, which has no noise, is treated as if it were x at the first
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
    """The number of steps of a walk of `depth`; None is the whole chain.

    Raises:
        ConfigError: the chain is shorter than `depth`, or `depth` is below 1.
    """
    if depth is None:
        return process.num_timesteps
    if not 1 <= depth <= process.num_timesteps:
        raise ConfigError(f"depth={depth}: from 1 to {process.num_timesteps}, the number of timesteps, are allowed")
    return depth


def num_network_calls(sampler: str, process: GaussianDiffusion, path: Path) -> int:
    """How often the sampler calls the network along the path: counted by a walk of one number."""
    num_calls = 0

    def counting(x_t: Tensor, timesteps: Tensor) -> Tensor:
        nonlocal num_calls
        num_calls += 1
        return x_t.new_zeros(1, 1 + process.learns_variance)

    for _ in _walk(sampler, process, counting, torch.zeros(1, 1), SamplerOptions(noise=torch.zeros_like), path):
        pass
    return num_calls


class Prediction:
    """What the network predicts from x at a level; `eps` is computed when a sampler asks for it."""

    def __init__(self, process: GaussianDiffusion, x: Tensor, index: int, x_0: Tensor) -> None:
        self._process, self._x, self._index = process, x, index
        self.x_0 = x_0
        """(N, C, ...): guided and clipped as the options say."""

    @cached_property
    def eps(self) -> Tensor:
        """(N, C, ...): the noise that belongs to `x_0`."""
        return self._process.eps_from_x_0(self._x, self._index, self.x_0)


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A process and a network under a sampler's options: all that a sampler asks."""

    process: GaussianDiffusion
    network: Model
    options: SamplerOptions

    def __call__(self, x: Tensor, level: Level) -> Prediction:
        """The prediction from x (N, C, ...), guided by the score; the network is told the level's timestep."""
        t, options = _timestep(level), self.options
        x_0 = self.process.predict_x_0(self.network, x, t, options)
        if options.guidance is not None:
            x_0 = condition_score(self.process, options.guidance, x_0, x, t, options.conditioning)
        return Prediction(self.process, x, t, x_0)

    def posterior(self, x: Tensor, level: Level) -> Denoised:
        """p(x_{t-1} | x_t), guided by its mean."""
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
    assert level.t is not None, "the network knows no timestep of this level"
    return level.t


@torch.no_grad()
def _walk(
    sampler: str, process: GaussianDiffusion, network: Model, x: Tensor, options: SamplerOptions, path: Path
) -> Iterator[Step]:
    predict = Predictor(process=process, network=network, options=options)
    yield from SAMPLERS[sampler].function(predict, x, path)
