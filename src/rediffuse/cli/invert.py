"""`rediffuse invert`: images to the latents that lead back to them."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from rediffuse.cli import dire
from rediffuse.sampling.config import SamplingSettings


@dataclass(frozen=True, kw_only=True)
class InvertFlags:
    """Invert images with DDIM and keep their latents x_T. What is done already is skipped.

    Every latent is also decoded: how far its image is from the original stands in the manifest (mean_error).
    """

    paths: tyro.conf.Positional[tuple[str, ...]]
    """Image files, folders (searched recursively, structure kept) or glob patterns."""
    out: Path
    """Folder for latents/NAME.safetensors, the manifest and the settings."""
    model: str = "default"
    """A model folder, a checkpoint, a published name, or the embedded default."""
    steps: int = SamplingSettings.steps
    """DDIM steps."""
    clip: bool = SamplingSettings.clip
    """Clip the predicted x_0 to [-1, 1] in every step."""
    frequency: str = SamplingSettings.frequency
    """What is done to the model's skip connections: trained (nothing, or its own spectral gates), off, freeu, freeu:B,
    sharpen or lowpass."""
    class_: Annotated[int | None, tyro.conf.arg(name="class")] = None
    """The class of every image, for a class-conditional model."""
    batch_size: int = 16
    """Images per call of the network."""
    workers: int = min(4, os.cpu_count() or 1)
    """Threads that decode, and threads that write."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto takes a GPU where there is one."""
    force: bool = False
    """Do every file again."""


def run(args: InvertFlags) -> int:
    """What `rediffuse dire` does, keeping the latents, on the grid that mirrors sampling."""
    return dire.run(
        dire.DireFlags(
            paths=args.paths,
            out=args.out,
            model=args.model,
            steps=args.steps,
            clip=args.clip,
            frequency=args.frequency,
            class_=args.class_,
            batch_size=args.batch_size,
            workers=args.workers,
            device=args.device,
            force=args.force,
            save="latents",
            grid="aligned",
        )
    )
