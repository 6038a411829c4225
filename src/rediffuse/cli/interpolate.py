"""`rediffuse interpolate`: the images between two images, by spherical interpolation of their latents."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from rediffuse.cli.flags import MODEL, Argument, CommandFlags
from rediffuse.cli.result import Result
from rediffuse.errors import InputError
from rediffuse.images.limits import Decoding
from rediffuse.models.config import PrecisionChoice
from rediffuse.sampling.config import SamplingSettings


@dataclass(frozen=True, kw_only=True)
class InterpolateFlags(Decoding, CommandFlags):
    """Invert two images, interpolate their latents spherically, and decode the results."""

    a: Annotated[Path, Argument(positional=True)]
    """The first image; its middle square is used."""
    b: Annotated[Path, Argument(positional=True)]
    """The last image."""
    out: Path
    """Folder for frames/ and strip.png, all frames in a row between the two images."""
    frames: int = 8
    """Number of frames, including the reconstructions of the two images."""
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
    """The class of all frames, for a class-conditional model."""
    precision: PrecisionChoice = "auto"
    """Number format inside the network. auto is bf16 if the processor or GPU has instructions for it, else fp32."""
    batch_size: int = 16
    """Images per call of the network."""
    device: str = "auto"
    """cpu, cuda, cuda:1 or mps; auto takes a GPU where there is one. offload, or offload:cuda:1, keeps the parts of a
    pipeline of diffusers in main memory, and only the part that computes on the GPU."""
    force: bool = False
    """Replace frames that already exist."""


def run(args: InterpolateFlags) -> Result:
    """Write the frames and the strip."""
    settings = SamplingSettings(
        sampler=args.sampler,
        steps=args.steps,
        spacing=args.spacing,
        clip=args.clip,
        frequency=args.frequency,
        prompt=args.prompt,
        guidance_scale=args.guidance_scale,
    )
    strip = args.out / "strip.png"
    if strip.exists() and not args.force:
        raise InputError(f"--out {args.out}: {strip.name} exists already; --force replaces it")

    import numpy as np

    from rediffuse.files import claim, remove, write_bytes
    from rediffuse.images.crop import center_crop
    from rediffuse.images.decode import decode
    from rediffuse.images.encode import png_bytes
    from rediffuse.images.montage import tile
    from rediffuse.images.tensors import to_tensor, to_uint8
    from rediffuse.sampling.latents import interpolate, invert
    from rediffuse.zoo.model import load
    from rediffuse.zoo.precision import choose_precision

    model = load(args.model, device=args.device)
    settings = replace(settings, precision=choose_precision(args.precision, model.device))
    ends = np.stack([center_crop(decode(path, args.decoding).pixels, model.image_size) for path in (args.a, args.b)])
    labels = None if args.class_ is None else [args.class_, args.class_]
    a, b = invert(model, to_tensor(ends), settings, labels=labels)
    images = interpolate(model, a, b, settings, num_frames=args.frames, label=args.class_, batch_size=args.batch_size)
    frames = [to_uint8(x_0) for x_0 in images]
    with claim(args.out):
        for old in args.out.glob("frames/*.png"):
            remove(old)  # from a call with another number of frames
        paths = [args.out / "frames" / f"{place:03d}.png" for place in range(len(frames))]
        for path, frame in zip(paths, frames, strict=True):
            write_bytes(path, png_bytes(frame))
        write_bytes(strip, png_bytes(tile(np.stack([ends[0], *frames, ends[1]]), columns=len(frames) + 2)))
    return Result(text=f"{len(frames)} frames: {strip}", record={"frames": paths, "strip": strip})
