"""Distributions of training timesteps: uniform, more low noise, or by the losses (arXiv:2102.09672, Sec. 3.3)."""

from typing import Any

import numpy as np
import torch
from torch import Tensor


def importance_weights(probabilities: Tensor, t: Tensor) -> Tensor:
    """Weights (N,) float32 for losses at t (N,) drawn with `probabilities` (T,), which make the mean loss unbiased."""
    return (1 / (len(probabilities) * probabilities[t])).float()


class UniformSampler:
    """Every timestep with the same probability."""

    def __init__(self, num_timesteps: int) -> None:
        self.num_timesteps = num_timesteps

    def probabilities(self) -> np.ndarray:
        """(T,) float64, summing to 1."""
        return np.full(self.num_timesteps, 1 / self.num_timesteps)

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw timesteps (n,) int64, and weights (n,) float32 with which the expected loss is unchanged."""
        p = torch.from_numpy(self.probabilities())
        t = torch.multinomial(p, n, replacement=True, generator=generator)
        return t, importance_weights(p, t)

    def update(self, t: Tensor, losses: Tensor) -> None:
        """Give the losses (N,) at timesteps t (N,). A uniform sampler does not use them."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state:
            raise ValueError("it has the state of another timestep sampler")


class LowNoiseSampler(UniformSampler):
    """Half of the timesteps from the quarter with the least noise, the other half from all of them.

    Detectors use timesteps in that quarter, and it has most of the loss of a network that predicts eps.
    """

    def probabilities(self) -> np.ndarray:
        least_noise = np.arange(self.num_timesteps) < self.num_timesteps / 4
        return super().probabilities() / 2 + least_noise / (2 * least_noise.sum())


class LossSecondMomentSampler(UniformSampler):
    """Draw timesteps in proportion to the root mean square of their last losses (Eq. 18).

    Until every timestep has `history` losses, all have the same probability.

    Args:
        num_timesteps: T.
        history: number of stored losses per timestep.
        uniform: share of the probability that is uniform over all timesteps.
    """

    def __init__(self, num_timesteps: int, history: int = 10, uniform: float = 0.001) -> None:
        super().__init__(num_timesteps)
        self.uniform = uniform
        self.losses = np.zeros((num_timesteps, history))
        self.counts = np.zeros(num_timesteps, dtype=np.int64)

    def probabilities(self) -> np.ndarray:
        if (self.counts < self.losses.shape[1]).any():
            return super().probabilities()
        weights = np.sqrt((self.losses**2).mean(axis=1))
        return weights / weights.sum() * (1 - self.uniform) + self.uniform / self.num_timesteps

    def update(self, t: Tensor, losses: Tensor) -> None:
        """Store the losses (N,) at the timesteps t (N,); with several processes, give the losses of all of them."""
        for index, loss in zip(t.tolist(), losses.tolist(), strict=True):
            row = self.losses[index]
            if self.counts[index] == len(row):
                row[:-1] = row[1:]
                row[-1] = loss
            else:
                row[self.counts[index]] = loss
                self.counts[index] += 1

    def state_dict(self) -> dict[str, Any]:
        return {"losses": torch.from_numpy(self.losses.copy()), "counts": torch.from_numpy(self.counts.copy())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.losses, self.counts = (state[name].numpy().copy() for name in ("losses", "counts"))
