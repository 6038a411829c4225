"""rediffuse: guided diffusion, diffusion inversion, and the detection of generated images by what does not return.

The names below are the public ones. Each is imported when it is first asked for: importing rediffuse loads no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rediffuse import errors
    from rediffuse.dire.reconstruct import reconstruct
    from rediffuse.dire.settings import DireSettings
    from rediffuse.sampling.config import SamplingSettings
    from rediffuse.sampling.latents import interpolate, invert
    from rediffuse.sampling.sample import sample, upscale
    from rediffuse.zoo.model import DiffusionModel, load, load_classifier

__all__ = [
    "DiffusionModel",
    "DireSettings",
    "SamplingSettings",
    "errors",
    "interpolate",
    "invert",
    "load",
    "load_classifier",
    "reconstruct",
    "sample",
    "upscale",
]

_HOMES = {
    "DiffusionModel": "rediffuse.zoo.model",
    "DireSettings": "rediffuse.dire.settings",
    "SamplingSettings": "rediffuse.sampling.config",
    "interpolate": "rediffuse.sampling.latents",
    "invert": "rediffuse.sampling.latents",
    "load": "rediffuse.zoo.model",
    "load_classifier": "rediffuse.zoo.model",
    "reconstruct": "rediffuse.dire.reconstruct",
    "sample": "rediffuse.sampling.sample",
    "upscale": "rediffuse.sampling.sample",
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
