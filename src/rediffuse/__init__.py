"""rediffuse: guided diffusion, diffusion inversion, and the detection of generated images by what does not return.

The names below are the public ones. Each is imported when it is first asked for: importing rediffuse loads no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rediffuse import errors
    from rediffuse.dire.reconstruct import reconstruct, settings_for
    from rediffuse.dire.settings import DireSettings
    from rediffuse.zoo.model import DiffusionModel, load, load_classifier

__all__ = [
    "DiffusionModel",
    "DireSettings",
    "errors",
    "load",
    "load_classifier",
    "reconstruct",
    "settings_for",
]

_HOMES = {
    "DiffusionModel": "rediffuse.zoo.model",
    "DireSettings": "rediffuse.dire.settings",
    "load": "rediffuse.zoo.model",
    "load_classifier": "rediffuse.zoo.model",
    "reconstruct": "rediffuse.dire.reconstruct",
    "settings_for": "rediffuse.dire.reconstruct",
}
"""The module that each name is defined in."""


def __getattr__(name: str) -> Any:
    if name == "errors":
        return importlib.import_module("rediffuse.errors")
    if name not in _HOMES:
        raise AttributeError(f"module 'rediffuse' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
