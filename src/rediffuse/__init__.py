"""rediffuse: guided diffusion, diffusion inversion, and the detection of generated images by reconstruction error.

The names below are the public ones. Each is imported when it is first used, so `import rediffuse` does not load torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rediffuse import errors
    from rediffuse.allocator import keep_freed_memory
    from rediffuse.detection.detect import detect
    from rediffuse.detection.detector import Detector, load_detector
    from rediffuse.detection.verdict import Verdict
    from rediffuse.diffusion import samplers
    from rediffuse.diffusion.config import ProcessConfig
    from rediffuse.dire.bands import band_profile
    from rediffuse.dire.reconstruct import DireMap, Reconstruction, reconstruct
    from rediffuse.dire.settings import DireSettings
    from rediffuse.images.tensors import read_image, write_image
    from rediffuse.sampling.config import SamplingSettings
    from rediffuse.sampling.guide import guide
    from rediffuse.sampling.latents import decode, interpolate, invert
    from rediffuse.sampling.sample import sample, upscale
    from rediffuse.zoo.model import ClassifierModel, DiffusionModel, load, load_classifier

__all__ = [
    "ClassifierModel",
    "Detector",
    "DiffusionModel",
    "DireMap",
    "DireSettings",
    "ProcessConfig",
    "Reconstruction",
    "SamplingSettings",
    "Verdict",
    "band_profile",
    "decode",
    "detect",
    "errors",
    "guide",
    "interpolate",
    "invert",
    "keep_freed_memory",
    "load",
    "load_classifier",
    "load_detector",
    "read_image",
    "reconstruct",
    "sample",
    "samplers",
    "upscale",
    "write_image",
]

_HOMES = {
    "ClassifierModel": "rediffuse.zoo.model",
    "Detector": "rediffuse.detection.detector",
    "DiffusionModel": "rediffuse.zoo.model",
    "DireMap": "rediffuse.dire.reconstruct",
    "DireSettings": "rediffuse.dire.settings",
    "ProcessConfig": "rediffuse.diffusion.config",
    "Reconstruction": "rediffuse.dire.reconstruct",
    "SamplingSettings": "rediffuse.sampling.config",
    "Verdict": "rediffuse.detection.verdict",
    "band_profile": "rediffuse.dire.bands",
    "decode": "rediffuse.sampling.latents",
    "detect": "rediffuse.detection.detect",
    "guide": "rediffuse.sampling.guide",
    "interpolate": "rediffuse.sampling.latents",
    "invert": "rediffuse.sampling.latents",
    "keep_freed_memory": "rediffuse.allocator",
    "load": "rediffuse.zoo.model",
    "load_classifier": "rediffuse.zoo.model",
    "load_detector": "rediffuse.detection.detector",
    "read_image": "rediffuse.images.tensors",
    "reconstruct": "rediffuse.dire.reconstruct",
    "sample": "rediffuse.sampling.sample",
    "upscale": "rediffuse.sampling.sample",
    "write_image": "rediffuse.images.tensors",
}
"""The module in which each name is defined."""
_MODULES = {"errors": "rediffuse.errors", "samplers": "rediffuse.diffusion.samplers"}
"""The names that are modules themselves."""


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name not in _HOMES:
        raise AttributeError(f"module 'rediffuse' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
