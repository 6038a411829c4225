"""Group values by the quarter of the chain of their timesteps, as in guided-diffusion's log."""

from collections.abc import Mapping

from torch import Tensor


def by_quartile(values: Mapping[str, Tensor], t: Tensor, num_timesteps: int) -> dict[str, Tensor]:
    """Split values (N,) at timesteps t (N,) int64 into `NAME_q0` (least noise) to `NAME_q3`, each of any length."""
    quartile = 4 * t // num_timesteps
    return {f"{name}_q{q}": value[quartile == q] for name, value in values.items() for q in range(4)}
