"""Noise schedules: the noise at every timestep, and the timesteps that are used."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

from rediffuse.diffusion.spacing import karras_sigmas, numbers, space_timesteps
from rediffuse.errors import ConfigError, nearest

Index = Tensor | int
"""Indices into a schedule: (N,) int64, or one int for all samples."""


@dataclass(frozen=True, kw_only=True, eq=False)
class NoiseSchedule:
    """beta_t of q(x_t | x_{t-1}), and the coefficients that follow from it (DDPM, arXiv:2006.11239, Sec. 2).

    All values are float64; `at` converts them to the precision of a tensor. A respaced schedule is a shorter
    `NoiseSchedule` with the same alpha_bar at the timesteps that are kept.
    """

    betas: np.ndarray
    """(T,) float64 in (0, 1]."""
    timesteps: np.ndarray
    """(T,): the network's timestep at each index, in timesteps of the training chain; int64, or float64 if levels are
    between timesteps."""
    num_train_timesteps: int
    """Number of timesteps of the training chain."""
    _tables: dict[tuple[str, torch.dtype, torch.device], Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.betas.ndim != 1 or not len(self.betas) or not ((self.betas > 0) & (self.betas <= 1)).all():
            raise ConfigError("betas: a non-empty vector of values above 0 and up to 1 is needed")
        assert self.timesteps.shape == self.betas.shape

    @classmethod
    def from_betas(cls, betas: Sequence[float] | np.ndarray) -> Self:
        """The schedule of a complete chain. Raises ConfigError if a beta is outside (0, 1]."""
        values = np.array(betas, dtype=np.float64)
        return cls(betas=values, timesteps=np.arange(len(values)), num_train_timesteps=len(values))

    @classmethod
    def linear(cls, num_timesteps: int) -> Self:
        """beta from 1e-4 to 2e-2 at T = 1000, scaled so that other T end at the same noise (DDPM, Sec. 4).

        Raises ConfigError for T below 20, where beta would exceed 1.
        """
        if num_timesteps < 20:
            raise ConfigError(f"num_timesteps={num_timesteps}: a linear schedule needs at least 20")
        scale = 1000 / num_timesteps
        return cls.from_betas(np.linspace(scale * 1e-4, scale * 2e-2, num_timesteps))

    @classmethod
    def cosine(cls, num_timesteps: int) -> Self:
        """alpha_bar falls as a squared cosine (Improved DDPM, arXiv:2102.09672, Eq. 17)."""
        return cls.from_alpha_bar(lambda u: math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2, num_timesteps)

    @classmethod
    def from_alpha_bar(cls, alpha_bar: Callable[[float], float], num_timesteps: int, max_beta: float = 0.999) -> Self:
        """The schedule whose alpha_bar after t of T steps is `alpha_bar(t / T)`; betas are limited to `max_beta`.

        Raises ConfigError if `alpha_bar` increases.
        """
        values = np.array([alpha_bar(t / num_timesteps) for t in range(num_timesteps + 1)])
        return cls.from_betas(np.minimum(1 - values[1:] / values[:-1], max_beta))

    @classmethod
    def named(cls, name: str, num_timesteps: int) -> Self:
        """`linear` or `cosine`. Raises ConfigError for another name."""
        schedules = {"linear": cls.linear, "cosine": cls.cosine}
        if name not in schedules:
            raise ConfigError(f"schedule={name!r}: linear and cosine are allowed{nearest(name, schedules)}")
        return schedules[name](num_timesteps)

    def respace(self, spec: str) -> Self:
        """The schedule on the grid of `spec`.

        Args:
            spec: a text that `space_timesteps` takes; or `"timesteps:0,50,400"`, the timesteps to keep; or
                `"sigmas:0.02,0.5,40"`, noise levels (see `at_sigmas`); or `"karras18"`, 18 noise levels with the
                spacing of Karras et al. (see `karras_sigmas`).

        Raises:
            ConfigError: the text has another form, or a value is outside the chain.
        """
        kind, _, values = spec.partition(":")
        if kind == "timesteps":
            return self.keep(numbers("timesteps", values, int))
        if kind == "sigmas":
            return self.at_sigmas(numbers("sigmas", values, float))
        if kind.startswith("karras"):
            [count] = numbers("karras", kind.removeprefix("karras"), int)
            return self.at_sigmas(karras_sigmas(count, float(self.sigma[0]), float(self.sigma[-1])))
        return self.keep(space_timesteps(self.num_timesteps, spec))

    def at_sigmas(self, sigmas: Sequence[float] | np.ndarray) -> Self:
        """The schedule of these noise levels, which may be between timesteps.

        The network is given fractional timesteps, interpolated in log sigma.

        Args:
            sigmas: sqrt(1 / alpha_bar - 1), ascending.

        Raises:
            ConfigError: they are not ascending, or outside the range of the chain.
        """
        values = np.array(sigmas, dtype=np.float64)
        low, high = self.sigma[0], self.sigma[-1]
        ascends = len(values) and (np.diff(values) > 0).all()
        if not ascends or values[0] < low * (1 - 1e-9) or values[-1] > high * (1 + 1e-9):
            raise ConfigError(f"sigmas={values.tolist()}: ascending numbers from {low:.4g} to {high:.4g} are allowed")
        alpha_bar = 1 / (1 + values**2)
        return type(self)(
            betas=1 - alpha_bar / np.append(1.0, alpha_bar[:-1]),
            timesteps=np.interp(np.log(values), np.log(self.sigma), self.timesteps),
            num_train_timesteps=self.num_train_timesteps,
        )

    def keep(self, indices: Sequence[int]) -> Self:
        """The schedule on the given indices: alpha_bar is unchanged there, and beta is the step between two of them."""
        kept = sorted(set(indices))
        if not kept or kept[0] < 0 or kept[-1] >= self.num_timesteps:
            raise ConfigError(
                f"timesteps={','.join(map(str, indices))}: numbers from 0 to {self.num_timesteps - 1} are needed"
            )
        alpha_bar = self.alpha_bar[kept]
        return type(self)(
            betas=1 - alpha_bar / np.append(1.0, alpha_bar[:-1]),
            timesteps=self.timesteps[kept],
            num_train_timesteps=self.num_train_timesteps,
        )

    @property
    def num_timesteps(self) -> int:
        return len(self.betas)

    @cached_property
    def alpha_bar(self) -> np.ndarray:
        return np.cumprod(1 - self.betas)

    @cached_property
    def alpha_bar_prev(self) -> np.ndarray:
        return np.append(1.0, self.alpha_bar[:-1])

    @cached_property
    def alpha_bar_next(self) -> np.ndarray:
        return np.append(self.alpha_bar[1:], 0.0)

    @cached_property
    def sqrt_alpha_bar(self) -> np.ndarray:
        return np.sqrt(self.alpha_bar)

    @cached_property
    def sqrt_one_minus_alpha_bar(self) -> np.ndarray:
        return np.sqrt(1 - self.alpha_bar)

    @cached_property
    def one_minus_alpha_bar(self) -> np.ndarray:
        return 1 - self.alpha_bar

    @cached_property
    def log_one_minus_alpha_bar(self) -> np.ndarray:
        return np.log(1 - self.alpha_bar)

    @cached_property
    def sqrt_recip_alpha_bar(self) -> np.ndarray:
        return np.sqrt(1 / self.alpha_bar)

    @cached_property
    def sqrt_recipm1_alpha_bar(self) -> np.ndarray:
        return np.sqrt(1 / self.alpha_bar - 1)

    @cached_property
    def sigma(self) -> np.ndarray:
        """The ratio of noise to signal, sqrt(1 / alpha_bar - 1): the sigma of Karras et al. (arXiv:2206.00364)."""
        return self.sqrt_recipm1_alpha_bar

    @cached_property
    def log_betas(self) -> np.ndarray:
        return np.log(self.betas)

    @cached_property
    def posterior_variance(self) -> np.ndarray:
        """beta tilde of DDPM, Eq. 7; 0 at the first index."""
        return self.betas * (1 - self.alpha_bar_prev) / (1 - self.alpha_bar)

    @cached_property
    def posterior_log_variance(self) -> np.ndarray:
        """log of `posterior_variance`; the first value, log 0, is replaced by the second."""
        if self.num_timesteps == 1:
            return self.log_betas
        return np.log(np.append(self.posterior_variance[1], self.posterior_variance[1:]))

    @cached_property
    def posterior_mean_x_0(self) -> np.ndarray:
        """The weight of x_0 in the mean of q(x_{t-1} | x_t, x_0) (DDPM, Eq. 7)."""
        return self.betas * np.sqrt(self.alpha_bar_prev) / (1 - self.alpha_bar)

    @cached_property
    def posterior_mean_x_t(self) -> np.ndarray:
        """The weight of x_t in the mean of q(x_{t-1} | x_t, x_0) (DDPM, Eq. 7)."""
        return (1 - self.alpha_bar_prev) * np.sqrt(1 - self.betas) / (1 - self.alpha_bar)

    @cached_property
    def large_variance(self) -> np.ndarray:
        """beta, except at the first index, where `posterior_variance[1]` gives a better likelihood of the decoder."""
        return np.append(self.posterior_variance[1:2], self.betas[1:]) if self.num_timesteps > 1 else self.betas

    @cached_property
    def log_large_variance(self) -> np.ndarray:
        return np.log(self.large_variance)

    @cached_property
    def rescaled_timesteps(self) -> np.ndarray:
        """(T,) float32: the timesteps, scaled to a chain of length 1000."""
        return self.timesteps.astype(np.float32) * np.float32(1000.0 / self.num_train_timesteps)

    def at(self, name: str, t: Index, x: Tensor) -> Tensor:
        """The coefficient `name` at the indices t, as a factor of x (N, ...).

        It has the precision of x, but at least float32. For t (N,) it is (N, 1, ...) on the device of t. For an int it
        is 0-dimensional on the CPU, which torch treats as a number, so it needs no transfer.
        """
        dtype = torch.promote_types(x.dtype, torch.float32)
        if isinstance(t, int):
            return self._table(name, dtype, torch.device("cpu"))[t]
        return self._table(name, dtype, t.device)[t].view(-1, *[1] * (x.ndim - 1))

    def network_timesteps(self, t: Index, x: Tensor, *, rescaled: bool) -> Tensor:
        """The timesteps (N,) at the indices t for x (N, ...), from a table on its device."""
        name = "rescaled_timesteps" if rescaled else "timesteps"
        dtype = torch.int64 if getattr(self, name).dtype == np.int64 else torch.float32
        return self._table(name, dtype, x.device)[t].expand(len(x))

    def _table(self, name: str, dtype: torch.dtype, device: torch.device) -> Tensor:
        """A table (T,) on a device, cached: the only place where float64 is converted to another precision."""
        key = (name, dtype, device)
        if key not in self._tables:
            with torch.inference_mode(False):  # so that a training can use the table too
                self._tables[key] = torch.from_numpy(getattr(self, name)).to(dtype).to(device)
        return self._tables[key]
