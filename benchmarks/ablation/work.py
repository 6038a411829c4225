"""The sizes of the ablation, its folder, and the cache of its results."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rediffuse.files import write_bytes


@dataclass(frozen=True, kw_only=True)
class Size:
    """Numbers of training steps, images and samples."""

    steps: int
    """Training steps of the small U-Nets."""
    gate_steps: int
    """Training steps of gates on a frozen base."""
    classifier_steps: int
    """Training steps of the network for the features of the Frechet distance."""
    resnet_steps: int
    num_train: int
    """Training images of detectors per class."""
    num_test: int
    """Test images of detectors per class."""
    num_samples: int
    """Samples per Frechet distance."""
    all_resnets: bool
    """Train a ResNet-50 on the errors of every variant, not only of the embedded model with and without gates."""


SIZES = {
    "small": Size(
        steps=320,
        gate_steps=150,
        classifier_steps=200,
        resnet_steps=150,
        num_train=128,
        num_test=128,
        num_samples=160,
        all_resnets=False,
    ),
    "large": Size(
        steps=6000,
        gate_steps=1500,
        classifier_steps=1000,
        resnet_steps=1500,
        num_train=1000,
        num_test=360,
        num_samples=2000,
        all_resnets=True,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Work:
    """The settings and the cache that all parts of the ablation share."""

    photos: Path
    out: Path
    size: Size
    device: torch.device

    def kept(self, name: str, measured: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The result of `measured` as JSON values, from the cache if an earlier call computed it."""
        path = self.out / f"{name}.json"
        if not path.exists():
            begun = time.perf_counter()
            say(name)
            write_bytes(path, json.dumps(measured()).encode())
            say(f"{name}: {time.perf_counter() - begun:.0f} s")
        return json.loads(path.read_text())


def say(line: str) -> None:
    """Print a line with the time."""
    print(f"[{time.strftime('%H:%M:%S')}] {line}", flush=True)
