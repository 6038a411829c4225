"""`rediffuse interpolate`: the images between two images, along the arc between their latents."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from rediffuse.errors import InputError
from rediffuse.sampling.config import SamplingSettings


@dataclass(frozen=True, kw_only=True)
class InterpolateFlags:
    """Invert two images with DDIM, walk the arc between their latents, and decode what lies on it."""

    a: tyro.conf.Positional[Path]
    """The image to begin with; its middle square is cut."""
    b: tyro.conf.Positional[Path]
    """The image to end with."""
    out: Path
    """Folder for frames/ and strip.png, which has the two images at its ends."""
    frames: int = 8
    """Images along the arc, both ends (the two images as the model gives them back) included."""
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
    """The class of all frames, for a class-conditional model."""
    batch_size: int = 16
    """Images per call of the network."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto takes a GPU where there is one."""
    force: bool = False
    """Replace frames that are already there."""


def run(args: InterpolateFlags) -> int:
    """Write the frames and the strip."""
    settings = SamplingSettings(steps=args.steps, clip=args.clip, frequency=args.frequency)
    strip = args.out / "strip.png"
    if strip.exists() and not args.force:
        raise InputError(f"--out {args.out}: {strip.name} is already there; --force replaces it")

    import numpy as np

    from rediffuse.files import remove, write_bytes
    from rediffuse.images.crop import center_crop
    from rediffuse.images.decode import decode
    from rediffuse.images.encode import png_bytes
    from rediffuse.images.montage import tile
    from rediffuse.images.tensors import to_tensor, to_uint8
    from rediffuse.sampling.latents import interpolate, invert
    from rediffuse.zoo.model import load

    model = load(args.model, device=args.device)
    ends = np.stack([center_crop(decode(path).pixels, model.image_size) for path in (args.a, args.b)])
    labels = None if args.class_ is None else [args.class_, args.class_]
    a, b = invert(model, to_tensor(ends), settings, labels=labels)
    images = interpolate(model, a, b, settings, num_frames=args.frames, label=args.class_, batch_size=args.batch_size)
    frames = [to_uint8(x_0) for x_0 in images]
    for old in args.out.glob("frames/*.png"):
        remove(old)  # of another number of frames
    for place, frame in enumerate(frames):
        write_bytes(args.out / "frames" / f"{place:03d}.png", png_bytes(frame))
    write_bytes(strip, png_bytes(tile(np.stack([ends[0], *frames, ends[1]]), columns=len(frames) + 2)))
    print(f"{len(frames)} frames: {strip}")
    return 0
