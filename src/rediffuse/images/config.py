"""How images are cut, as data that needs no numpy."""

from typing import Literal

Crop = Literal["center", "squash"]
"""`center`: shrink the shorter side to the size and cut the middle square. `squash`: shrink both sides to the size."""
