"""How images are cut, and the names of what is done to them, as data that needs no numpy."""

from typing import Literal, get_args

from rediffuse.errors import ConfigError, nearest

Crop = Literal["center", "squash"]
"""`center`: shrink the shorter side to the size and cut the middle square. `squash`: shrink both sides to the size."""

ChangeName = Literal["jpeg", "webp", "reduce", "crop", "blur", "noise", "screenshot"]
"""What happens to the files of people, and what hides fine detail (`images.changes.Change`)."""

_WINDOWS = "windows"


def num_windows(crop: str) -> int | None:
    """N of `windows:N`: an image becomes up to N squares of the size, cut without resampling; None for a `Crop`.

    Raises:
        ConfigError: another name, or N is not a whole number from 1 on.
    """
    if crop in get_args(Crop):
        return None
    name, _, number = crop.partition(":")
    if name != _WINDOWS:
        allowed = [*get_args(Crop), f"{_WINDOWS}:N"]
        raise ConfigError(f"crop={crop}: {', '.join(allowed)} are allowed{nearest(crop, allowed)}")
    if not (number.isascii() and number.isdecimal()) or number.startswith("0"):
        raise ConfigError(f"crop={crop}: N of {_WINDOWS}:N is a whole number, at least 1")
    return int(number)
