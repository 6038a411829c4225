"""The timesteps or noise levels of a chain that a sampler uses."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

from rediffuse.errors import ConfigError

N = TypeVar("N", int, float)


def space_timesteps(num_timesteps: int, spec: str | Sequence[int]) -> tuple[int, ...]:
    """The indices of the timesteps that a respacing keeps, ascending.

    Args:
        num_timesteps: length of the chain.
        spec: `"ddimN"`: N timesteps with the integer stride that gives N (DDIM, arXiv:2010.02502, Sec. 4.2). Otherwise
            numbers of timesteps in equal sections of the chain, `"10,15,20"` or `[10, 15, 20]`, evenly spaced in each.

    Raises:
        ConfigError: no stride gives N, a section is too short for its number, or the text has another form.
    """
    if isinstance(spec, str):
        if spec.startswith("ddim"):
            return _strided(num_timesteps, spec)
        try:
            spec = [int(count) for count in spec.split(",")]
        except ValueError:
            raise ConfigError(f"respacing={spec!r}: counts such as 250 or 10,15,20, or ddim50, are allowed") from None
    if not len(spec) or min(spec) < 0 or max(spec) < 1:
        raise ConfigError(f"respacing={list(spec)}: at least one timestep must be kept")
    return tuple(_sections(num_timesteps, spec))


def karras_sigmas(
    count: int, sigma_min: float, sigma_max: float, *, rho: float = 7.0, limits: tuple[float, float] = (0.002, 80.0)
) -> np.ndarray:
    """Noise levels (count,), ascending: `count` values evenly spaced in sigma^(1/rho) (arXiv:2206.00364, Eq. 5).

    Args:
        count: at least 1; a single level is the noisiest one.
        sigma_min: the least noise of the chain.
        sigma_max: its most noise.
        rho: the root.
        limits: the range of the paper, to which that of the chain is restricted.
    """
    if count < 1:
        raise ConfigError(f"karras{count}: at least 1 level is needed")
    low, high = max(sigma_min, limits[0]), min(sigma_max, limits[1])
    ramp = np.linspace(0, 1, count) if count > 1 else np.ones(1)
    return (low ** (1 / rho) + ramp * (high ** (1 / rho) - low ** (1 / rho))) ** rho


def numbers(name: str, text: str, kind: type[N]) -> list[N]:
    """Parse a list of numbers such as `"0,50,400"`; `name` is its name in errors.

    Raises:
        ConfigError: the text is not a list of numbers.
    """
    try:
        return [kind(value) for value in text.split(",")]
    except ValueError:
        raise ConfigError(f"{name}={text!r}: numbers separated by commas are needed") from None


def _strided(num_timesteps: int, spec: str) -> tuple[int, ...]:
    count = spec.removeprefix("ddim")
    lengths = {len(range(0, num_timesteps, stride)): stride for stride in range(num_timesteps - 1, 0, -1)}
    if not count.isdigit() or int(count) not in lengths:
        wanted = int(count) if count.isdigit() else 0
        near = sorted(sorted(lengths, key=lambda n: abs(n - wanted))[:4])
        raise ConfigError(
            f"respacing={spec!r}: no integer stride over {num_timesteps} timesteps gives {count or 'nothing'}; "
            f"the nearest that work are {', '.join(f'ddim{n}' for n in near)}"
        )
    return tuple(range(0, num_timesteps, lengths[int(count)]))


def _sections(num_timesteps: int, counts: Sequence[int]) -> Iterator[int]:
    length, longer = divmod(num_timesteps, len(counts))
    start = 0
    for section, count in enumerate(counts):
        size = length + (section < longer)
        if size < count:
            raise ConfigError(f"respacing={list(counts)}: {count} timesteps do not fit in a section of {size}")
        stride = (size - 1) / max(1, count - 1)
        place = 0.0  # summed, not multiplied, to round as in guided-diffusion
        for _ in range(count):
            yield start + round(place)
            place += stride
        start += size
