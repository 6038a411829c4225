"""guided-diffusion's importance samplers with their old names; `rediffuse.diffusion.importance` computes.

Timesteps are drawn with `np.random.choice`, as before. `torch.distributed` is used if it is initialised.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist

from rediffuse.diffusion import importance
from rediffuse.errors import ConfigError, nearest


class _Chain(Protocol):
    num_timesteps: int


class ScheduleSampler(ABC):
    """A distribution over timesteps, with weights of the losses that keep the objective's expectation unchanged."""

    @abstractmethod
    def weights(self) -> np.ndarray:
        """(T,) positive, proportional to the probabilities of the timesteps."""

    def sample(self, batch_size: int, device: torch.device | str) -> tuple[Tensor, Tensor]:
        """Timesteps (batch_size,) int64, and float32 weights (batch_size,) to multiply their losses with."""
        weights = self.weights()
        probabilities = weights / weights.sum()
        t = torch.from_numpy(np.random.choice(len(probabilities), size=(batch_size,), p=probabilities)).long()
        loss_weights = importance.importance_weights(torch.from_numpy(probabilities), t)
        return t.to(device), loss_weights.to(device)


class UniformSampler(ScheduleSampler):
    """All timesteps with equal probability."""

    def __init__(self, diffusion: _Chain) -> None:
        self.diffusion = diffusion

    def weights(self) -> np.ndarray:
        return np.ones(self.diffusion.num_timesteps)


class LossAwareSampler(ScheduleSampler):
    """A sampler whose distribution depends on the losses."""

    def update_with_local_losses(self, local_ts: Tensor, local_losses: Tensor) -> None:
        """Give this process's timesteps (N,) and losses (N,); every process gets those of all, in the same order."""
        local = (local_ts.tolist(), local_losses.tolist())
        everyone = [local]
        if dist.is_available() and dist.is_initialized():
            everyone = [local] * dist.get_world_size()
            dist.all_gather_object(everyone, local)
        self.update_with_all_losses([t for ts, _ in everyone for t in ts], [x for _, xs in everyone for x in xs])

    @abstractmethod
    def update_with_all_losses(self, ts: Sequence[int], losses: Sequence[float]) -> None:
        """Update the distribution with losses at timesteps; called with the same arguments in every process."""


class LossSecondMomentResampler(LossAwareSampler):
    """Draw timesteps in proportion to the root mean square of their last `history_per_term` losses."""

    def __init__(self, diffusion: _Chain, history_per_term: int = 10, uniform_prob: float = 0.001) -> None:
        self.diffusion = diffusion
        self.history_per_term = history_per_term
        self.uniform_prob = uniform_prob
        self._sampler = importance.LossSecondMomentSampler(diffusion.num_timesteps, history_per_term, uniform_prob)

    def weights(self) -> np.ndarray:
        """(T,) float64: ones until every timestep has enough losses, then the probabilities."""
        return self._sampler.probabilities() if self._warmed_up() else np.ones(self.diffusion.num_timesteps)

    def _warmed_up(self) -> bool:
        return bool((self._sampler.counts == self.history_per_term).all())

    def update_with_all_losses(self, ts: Sequence[int], losses: Sequence[float]) -> None:
        self._sampler.update(torch.as_tensor(ts), torch.as_tensor(losses, dtype=torch.float64))


def create_named_schedule_sampler(name: str, diffusion: Any) -> ScheduleSampler:
    """`uniform` or `loss-second-moment`. Raises ConfigError for another name."""
    samplers = {"uniform": UniformSampler, "loss-second-moment": LossSecondMomentResampler}
    if name not in samplers:
        raise ConfigError(f"schedule_sampler={name!r}: {' and '.join(samplers)} are allowed{nearest(name, samplers)}")
    return samplers[name](diffusion)
