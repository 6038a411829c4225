"""Values by the quarter of the chain that their timesteps lie in: what guided-diffusion's log shows."""

from collections.abc import Mapping

from torch import Tensor


def by_quartile(values: Mapping[str, Tensor], t: Tensor, num_timesteps: int) -> dict[str, Tensor]:
    """The values (N,) at timesteps t (N,) int64 as `NAME_q0` (the least noise) to `NAME_q3`, of any length each."""
    quartile = 4 * t // num_timesteps
    return {f"{name}_q{q}": value[quartile == q] for name, value in values.items() for q in range(4)}
