"""A training of a diffusion model with a few milliseconds per step, and a program that runs it in its own process."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rediffuse.diffusion.config import ProcessConfig
from rediffuse.files import write_bytes
from rediffuse.images.encode import png_bytes
from rediffuse.models.config import EncoderConfig, UNetConfig
from rediffuse.training.config import (
    ClassifierTraining,
    DiffusionTraining,
    GridConfig,
    LoopConfig,
    SuperResTraining,
)
from rediffuse.training.diffusion import DiffusionTask
from rediffuse.training.loop import Outcome, train


def write_images(folder: Path, num_images: int = 10) -> Path:
    """Images of 12 x 10 random pixels in two classes."""
    rng = np.random.default_rng(0)
    for index in range(num_images):
        pixels = rng.integers(0, 256, (12, 10, 3), dtype=np.uint8)
        write_bytes(folder / ("cat", "dog")[index % 2] / f"{index}.png", png_bytes(pixels))
    return folder


def tiny(data: Path, num_steps: int = 6, network: dict[str, Any] | None = None, **loop: Any) -> DiffusionTraining:
    """8 px, one block per level, dropout; batches that cross the end of an epoch."""
    defaults: dict[str, Any] = {"batch_size": 4, "learning_rate": 1e-3, "ema_rates": (0.9, 0.5), "log_every": 1}
    return DiffusionTraining(
        data=str(data),
        network=UNetConfig(
            **{
                "image_size": 8,
                "model_channels": 32,
                "out_channels": 6,
                "num_res_blocks": 1,
                "channel_mult": (1,),
                "dropout": 0.1,
                **(network or {}),
            }
        ),
        process=ProcessConfig(schedule="cosine", num_timesteps=40),
        loop=LoopConfig(num_steps=num_steps, **defaults | loop),
        grid=GridConfig(num_images=3, num_sampling_steps=2),
        timestep_sampler="loss_second_moment",
    )


def tiny_superres(data: Path, num_steps: int = 2, **fields: Any) -> SuperResTraining:
    """`tiny` from 4 px to 8."""
    parts = vars(tiny(data, num_steps)) | {"small_size": 4} | fields
    return SuperResTraining(**parts)


def tiny_classifier(data: Path, num_steps: int = 2, **fields: Any) -> ClassifierTraining:
    """The encoder of `tiny` with two classes."""
    loop = LoopConfig(num_steps=num_steps, batch_size=4, learning_rate=1e-3, ema_rates=(), log_every=1)
    network = EncoderConfig(image_size=8, model_channels=32, out_channels=2, num_res_blocks=1, channel_mult=(1,))
    process = ProcessConfig(schedule="cosine", num_timesteps=40)
    return ClassifierTraining(**{"data": str(data), "network": network, "process": process, "loop": loop} | fields)


def run(config: DiffusionTraining, folder: Path) -> Outcome:
    """Train, in this process."""
    return train(DiffusionTask(config), config.loop, folder)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Model and averages of the newest checkpoint of a run, flat."""
    newest = max((folder / "checkpoints").glob("*.pt"))
    state = torch.load(newest, weights_only=True)
    averages = {f"{i}.{name}": value for i, part in enumerate(state["averages"]) for name, value in part.items()}
    return state["model"] | averages


def main() -> None:
    """`python tiny.py DATA RUN NUM_STEPS [anything: no dropout]`: the same training as a program."""
    data, folder, num_steps, *plain = sys.argv[1:]
    torch.set_num_threads(min(2, torch.get_num_threads()))  # as in the tests: another number rounds differently
    run(tiny(Path(data), int(num_steps), save_every=5, network={"dropout": 0.0} if plain else None), Path(folder))


if __name__ == "__main__":
    main()
