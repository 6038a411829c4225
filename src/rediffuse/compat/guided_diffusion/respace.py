"""guided-diffusion's respacing with its old names."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from rediffuse.compat.guided_diffusion.gaussian_diffusion import GaussianDiffusion
from rediffuse.diffusion import schedule, spacing


def space_timesteps(num_timesteps: int, section_counts: str | Sequence[int]) -> set[int]:
    """The timesteps that `"ddimN"`, `"10,15,20"` or `[10, 15, 20]` keeps; see `rediffuse.diffusion.spacing`."""
    return set(spacing.space_timesteps(num_timesteps, section_counts))


class SpacedDiffusion(GaussianDiffusion):
    """A process on some timesteps of a longer chain; the network is given the timesteps of the longer chain.

    use_timesteps: the timesteps to keep, in any order; numbers outside the chain are ignored. kwargs: the arguments of
    `GaussianDiffusion` for the longer chain.
    """

    def __init__(self, use_timesteps: Iterable[int], **kwargs: Any) -> None:
        whole = schedule.NoiseSchedule.from_betas(kwargs.pop("betas"))
        self.use_timesteps = set(use_timesteps)
        kept = whole.keep([t for t in self.use_timesteps if 0 <= t < whole.num_timesteps])
        self.timestep_map: list[int] = kept.timesteps.tolist()
        self.original_num_steps = whole.num_timesteps
        super().__init__(betas=kept.betas, **kwargs)

    def _wrap_model(self, model: Callable[..., Tensor]) -> "_WrappedModel":
        if isinstance(model, _WrappedModel):
            return model
        return _WrappedModel(model, self.timestep_map, self.rescale_timesteps, self.original_num_steps)

    def _scale_timesteps(self, t: Tensor) -> Tensor:
        return t  # the wrapped model does it


class _WrappedModel:
    """A network that is called with indices of the kept timesteps."""

    def __init__(
        self,
        model: Callable[..., Tensor],
        timestep_map: Sequence[int],
        rescale_timesteps: bool,
        original_num_steps: int,
    ) -> None:
        self.model = model
        self.timestep_map = timestep_map
        self.rescale_timesteps = rescale_timesteps
        self.original_num_steps = original_num_steps

    def __call__(self, x: Tensor, ts: Tensor, **kwargs: Any) -> Tensor:
        timesteps = torch.tensor(self.timestep_map, device=ts.device)[ts]
        if self.rescale_timesteps:
            timesteps = timesteps * (1000.0 / self.original_num_steps)
        return self.model(x, timesteps, **kwargs)
