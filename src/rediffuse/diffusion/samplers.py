"""The interface of samplers, and their registry. Imports no torch.

A sampler is a function (predict, x, path) -> iterator of `Step`. `path` is a sequence of noise levels, from noise to
images (sampling) or from images to noise (inversion); the sampler moves x from each level to the next one. `predict`
gives the network's prediction at a level (`diffusion.trajectory.Predictor`).
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from rediffuse.diffusion import solvers
from rediffuse.errors import ConfigError, nearest

if TYPE_CHECKING:
    from torch import Tensor

    from rediffuse.diffusion.trajectory import Predictor

Draws = Literal["never", "eta", "always"]


class Level(NamedTuple):
    """A noise level: x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps."""

    alpha_bar: Tensor
    """A 0-dimensional float64 tensor on the CPU, so that arithmetic with it needs no transfer to a device."""
    t: int | None
    """The level's index in the process's schedule; None for the clean image and for pure noise, which have none."""

    @property
    def signal(self) -> Tensor:
        return self.alpha_bar.sqrt()

    @property
    def noise(self) -> Tensor:
        return (1 - self.alpha_bar).sqrt()

    @property
    def sigma(self) -> Tensor:
        """noise / signal, the sigma of Karras et al. (arXiv:2206.00364)."""
        return self.noise / self.signal


Path = Sequence[Level]


class Step(NamedTuple):
    """The result of one step of a sampler; each (N, C, ...)."""

    x: Tensor
    """The sample at the level where the step ends."""
    x_0: Tensor
    """The x_0 that the network predicted in this step."""


SamplerFunction = Callable[["Predictor", "Tensor", Path], Iterator[Step]]


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """A registered sampler."""

    function: SamplerFunction
    draws: Draws
    """Whether it draws noise: never, only if eta > 0, or in every step. A sampler that draws noise cannot invert."""

    @property
    def can_invert(self) -> bool:
        """Whether it can solve the probability-flow ODE, which also goes from images to noise."""
        return self.draws != "always"


SAMPLERS: dict[str, Sampler] = {}
"""All samplers by name: the values of `--sampler`, `SamplingSettings.sampler` and `DireSettings.solver`."""


def register_sampler(name: str, *, draws: Draws = "never") -> Callable[[SamplerFunction], SamplerFunction]:
    """Register the decorated function as the sampler `name`."""

    def decorate(function: SamplerFunction) -> SamplerFunction:
        SAMPLERS[name] = Sampler(function=function, draws=draws)
        return function

    return decorate


def get_sampler(field: str, name: str, *, inverts: bool = False) -> Sampler:
    """The sampler `name`; `field` is the name of the setting in errors, `inverts` requires a sampler that can invert.

    Raises:
        ConfigError: there is no such sampler, or it cannot invert; names the allowed ones.
    """
    allowed = [known for known, sampler in SAMPLERS.items() if sampler.can_invert or not inverts]
    if name not in allowed:
        raise ConfigError(f"{field}={name}: {', '.join(allowed)} are allowed{nearest(name, allowed)}")
    return SAMPLERS[name]


# At the end, because the modules of that folder import the names above.
for _module in sorted(module.name for module in pkgutil.iter_modules(solvers.__path__)):
    importlib.import_module(f"{solvers.__name__}.{_module}")
