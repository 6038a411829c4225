"""`rediffuse invert`: compute the latents of images."""

import os
from dataclasses import dataclass
from typing import Annotated

from rediffuse.cli import dire
from rediffuse.cli.flags import MODEL, PATHS, Argument, CommandFlags
from rediffuse.cli.reconstruction import ReconstructionFlags
from rediffuse.cli.result import Result
from rediffuse.images.limits import Decoding
from rediffuse.models.config import PrecisionChoice
from rediffuse.sampling.config import SamplingSettings


@dataclass(frozen=True, kw_only=True)
class InvertFlags(Decoding, CommandFlags):
    """Invert images and save their latents x_T. Files whose results already exist are skipped.

    Every latent is also decoded; the manifest has the mean error of the decoded image (mean_error).
    """

    paths: Annotated[tuple[str, ...], PATHS]
    """Image files, folders (searched recursively, structure kept) or glob patterns; - reads paths from standard
    input."""
    out: Annotated[str, Argument(metavar="FOLDER")]
    """Folder for latents/NAME.safetensors, the manifest and the settings."""
    model: Annotated[str, MODEL] = "default"
    """A model folder, a checkpoint, a published name, owner/name on the hub, or the embedded default."""
    sampler: str = SamplingSettings.sampler
    """ddim, dpm_solver (DPM-Solver++ 2M) or heun."""
    steps: int = SamplingSettings.steps
    """Length of the timestep grid."""
    spacing: str = SamplingSettings.spacing
    """Spacing of the timesteps: even, karras, timesteps:T,T,... or sigmas:S,S,..."""
    clip: bool = SamplingSettings.clip
    """Clip the predicted x_0 to [-1, 1] in every step."""
    frequency: str = SamplingSettings.frequency
    """Filter on the model's skip connections: trained (none but its own spectral gates), off, freeu, freeu:B, sharpen
    or lowpass."""
    prompt: str = SamplingSettings.prompt
    """The text that conditions the model, for a model with prompts."""
    guidance_scale: float = SamplingSettings.guidance_scale
    """Scale of classifier-free guidance by the prompt or the class; 1 is without guidance."""
    class_: Annotated[int | None, Argument(name="class")] = None
    """The class of every image, for a class-conditional model."""
    precision: PrecisionChoice = "auto"
    """Number format inside the network. auto is that of the latents in --out, if there are any; else bf16 if the
    processor or GPU has instructions for it, else fp32."""
    batch_size: int = 16
    """Images per call of the network."""
    workers: int = min(4, os.cpu_count() or 1)
    """Threads that decode, and threads that write."""
    device: str = "auto"
    """cpu, cuda, cuda:1 or mps; auto takes a GPU where there is one. offload, or offload:cuda:1, keeps the parts of a
    pipeline of diffusers in main memory, and only the part that computes on the GPU."""
    force: bool = False
    """Process every file again."""


def run(args: InvertFlags) -> Result:
    """As `rediffuse dire`, but save the latents, on the timesteps of sampling."""
    return dire.run(
        dire.DireFlags(
            paths=args.paths,
            out=str(args.out),
            model=args.model,
            reconstruction=ReconstructionFlags(
                solver=args.sampler,
                steps=args.steps,
                spacing=args.spacing,
                clip=args.clip,
                frequency=args.frequency,
                prompt=args.prompt,
                guidance_scale=args.guidance_scale,
                grid="aligned",
            ),
            class_=args.class_,
            batch_size=args.batch_size,
            workers=args.workers,
            device=args.device,
            max_pixels=args.max_pixels,
            force=args.force,
            save="latents",
            precision=args.precision,
        )
    )
