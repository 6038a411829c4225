"""`rediffuse upscale`: enlarge images, or samples of a smaller model, with a super-resolution model."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from rediffuse.cli import ranks
from rediffuse.cli.sample import show
from rediffuse.errors import ConfigError
from rediffuse.sampling.config import Crop, Sampler, SamplingSettings, UpscaleRecord

if TYPE_CHECKING:
    from rediffuse.sampling.small import SmallImage
    from rediffuse.zoo.model import DiffusionModel


@dataclass(frozen=True, kw_only=True)
class UpscaleFlags:
    """Enlarge images. What is there already is skipped; under torchrun, processes share the images."""

    paths: tyro.conf.Positional[tuple[str, ...]]
    """Image files, folders or glob patterns, scaled down to what the model enlarges; or one .npz of samples of just
    that size."""
    model: str
    """The super-resolution model: a folder, a checkpoint or a published name."""
    out: Path
    """Folder for images/, small/ (what was enlarged) and settings.json."""
    small_size: int | None = None
    """Side of what the model enlarges, in pixels; needed where the model does not say."""
    crop: Crop = "center"
    """How images are scaled down: the shorter side, with the middle cut out, or both sides."""
    class_: Annotated[int | None, tyro.conf.arg(name="class")] = None
    """The class of every image, for a class-conditional model; an .npz may bring its own (arr_1)."""
    seed: int = 0
    """The noise of an image depends on this and on its small pixels alone."""
    sampler: Sampler = SamplingSettings.sampler
    """DDPM, DDIM, or DPM-Solver++ 2M."""
    steps: int = SamplingSettings.steps
    """Calls of the network per image."""
    eta: float = SamplingSettings.eta
    """DDIM's share of noise, from 0 to 1."""
    frequency: str = SamplingSettings.frequency
    """What is done to the model's skip connections: trained (nothing, or its own spectral gates), off, freeu, freeu:B,
    sharpen or lowpass."""
    batch_size: int = 16
    """Images per call of the network."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto takes a GPU where there is one."""
    force: bool = False
    """Make every image again; images of other settings in the folder are removed."""


def run(args: UpscaleFlags) -> int:
    """Fill the folder; 1 where a file could not be read."""
    settings = SamplingSettings(sampler=args.sampler, steps=args.steps, eta=args.eta, frequency=args.frequency)
    ranks.refuse_force(args.force)
    if not 0 <= args.seed < 2**32:
        raise ConfigError(f"--seed {args.seed}: 0 to {2**32 - 1} are allowed")

    from rediffuse.sampling.folder import ImageFolder
    from rediffuse.sampling.job import fill_with_enlarged
    from rediffuse.sampling.small import small_size
    from rediffuse.zoo.model import load

    model = load(args.model, device=ranks.own_device(args.device))
    size = small_size(model, args.small_size)
    record = UpscaleRecord(
        model_sha256=model.provenance.sha256,
        settings=settings,
        small_size=size,
        crop=args.crop,
        seed=args.seed,
        label=args.class_,
    )
    folder = ImageFolder(args.out, record, force=args.force)
    images, reasons = _read(args, model, size)
    own = ranks.share(images)
    todo = [small for small in own if args.force or not folder.holds(small.name, small.pixels)]
    made = fill_with_enlarged(model, todo, settings, folder=folder, seed=args.seed, batch_size=args.batch_size)
    show(made, num_images=len(todo))
    for reason in reasons:
        print(f"rediffuse: {reason}", file=sys.stderr)
    before = len(own) - len(todo)
    print(f"{len(todo)} made, {len(reasons)} failed, {before} there before: {args.out / 'images'}")
    return 1 if reasons else 0


def _read(args: UpscaleFlags, model: "DiffusionModel", size: int) -> "tuple[list[SmallImage], list[str]]":
    from rediffuse.images.find import find_images
    from rediffuse.sampling.small import from_files, from_npz

    if [Path(path).suffix for path in args.paths] == [".npz"]:
        return from_npz(Path(args.paths[0]), size, args.class_, model.num_classes), []
    return from_files(find_images(args.paths), size, args.crop, args.class_)
