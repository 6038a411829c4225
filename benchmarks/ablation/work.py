"""How much is done, where it is kept, and that nothing is done twice."""

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
    """How much is trained and measured."""

    steps: int
    """Of the small U-Nets."""
    gate_steps: int
    """Of gates on a frozen base."""
    classifier_steps: int
    """Of the network whose features the Frechet distance compares."""
    resnet_steps: int
    num_train: int
    """Images per class that detectors are fitted to."""
    num_test: int
    """Images per class that they are judged on."""
    num_samples: int
    """Per Frechet distance."""
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
    """What all parts of the ablation share."""

    photos: Path
    out: Path
    size: Size
    device: torch.device

    def kept(self, name: str, measured: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What `measured` gave in this call or an earlier one, as JSON values."""
        path = self.out / f"{name}.json"
        if not path.exists():
            begun = time.perf_counter()
            say(name)
            write_bytes(path, json.dumps(measured()).encode())
            say(f"{name}: {time.perf_counter() - begun:.0f} s")
        return json.loads(path.read_text())


def say(line: str) -> None:
    """A line for who watches."""
    print(f"[{time.strftime('%H:%M:%S')}] {line}", flush=True)
