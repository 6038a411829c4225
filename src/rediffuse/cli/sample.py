"""`rediffuse sample`: images out of a model, each from its own seed."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from rediffuse.cli import ranks
from rediffuse.errors import ConfigError, InputError
from rediffuse.sampling.config import Progressive, Request, Sampler, SampleRecord, SamplingSettings
from rediffuse.sampling.numbers import LARGEST_SEED, parse_classes, parse_numbers, requests

if TYPE_CHECKING:
    from rediffuse.sampling.folder import ImageFolder


@dataclass(frozen=True, kw_only=True)
class SampleFlags:
    """Sample images. What is there already is skipped; under torchrun, processes share the seeds."""

    out: Path
    """Folder for images/, settings.json and what else is asked for."""
    model: str = "default"
    """A model folder, a checkpoint, a published name, or the embedded default."""
    seeds: str = "0-63"
    """One image each: numbers and ranges, such as 7, 0-63 or 0-9,20. An image depends on its own seed alone."""
    class_: Annotated[str | None, tyro.conf.arg(name="class", metavar="INT|RANGES|cycle")] = None
    """Needed where there are classes: one, several (0-9) in turn, or all in turn (cycle). Seed s takes the class at
    place s modulo their number."""
    sampler: Sampler = SamplingSettings.sampler
    """DDPM, DDIM, or DPM-Solver++ 2M."""
    steps: int = SamplingSettings.steps
    """Calls of the network per image."""
    eta: float = SamplingSettings.eta
    """DDIM's share of noise, from 0 to 1."""
    clip: bool = SamplingSettings.clip
    """Clip the predicted x_0 to [-1, 1] in every step."""
    frequency: str = SamplingSettings.frequency
    """What is done to the model's skip connections: trained (nothing, or its own spectral gates), off, freeu, freeu:B,
    sharpen or lowpass."""
    classifier: str | None = None
    """A classifier of noisy images that guides: a folder, a checkpoint or a published name."""
    scale: float | None = None
    """How strongly it does; 1 if not given."""
    npz: Path | None = None
    """Also write all images, and their classes, to this file in guided-diffusion's format."""
    grid: bool = False
    """Also write grid.png, all images of this call in one (the first 1024)."""
    progressive: Progressive | None = None
    """Also show the way from noise to each image: x_t above, the x_0 that the model sees ahead below."""
    batch_size: int = 16
    """Images per call of the network."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto takes a GPU where there is one."""
    force: bool = False
    """Make every image again; images of other settings in the folder are removed."""


def run(args: SampleFlags) -> int:
    """Fill the folder and say what is in it."""
    settings = SamplingSettings(
        sampler=args.sampler, steps=args.steps, eta=args.eta, clip=args.clip, frequency=args.frequency
    )
    seeds = parse_numbers(args.seeds, "--seeds", LARGEST_SEED)
    if args.scale is not None and args.classifier is None:
        raise ConfigError(f"--scale {args.scale}: is the classifier's; --classifier is not given")
    ranks.refuse_force(args.force)

    from rediffuse.sampling.folder import ImageFolder
    from rediffuse.sampling.guide import guide
    from rediffuse.sampling.job import fill_with_samples
    from rediffuse.zoo.model import load, load_classifier

    device = ranks.own_device(args.device)
    model = load(args.model, device=device)
    classifier, guidance, scale = None, None, None
    if args.classifier is not None:
        classifier, scale = load_classifier(args.classifier, device=device), 1.0 if args.scale is None else args.scale
        guidance = guide(model, classifier, scale)
    num_classes = model.num_classes if classifier is None else classifier.num_classes
    wanted = requests(seeds, parse_classes(args.class_, num_classes))
    record = SampleRecord(
        model_sha256=model.provenance.sha256,
        settings=settings,
        classifier_sha256=classifier.provenance.sha256 if classifier else None,
        scale=scale,
    )
    folder = ImageFolder(args.out, record, progressive=args.progressive, force=args.force)
    is_there = {request.name for request in wanted if folder.holds(request.name)}
    _check_npz(args, is_complete=len(is_there) == len(wanted))

    # Each process takes its share before it looks what is missing, so that all of them divide the same list.
    own = ranks.share(wanted)
    todo = [request for request in own if args.force or request.name not in is_there]
    made = fill_with_samples(model, todo, settings, folder=folder, guidance=guidance, batch_size=args.batch_size)
    show(made, num_images=len(todo))
    print(f"{len(todo)} made, {len(own) - len(todo)} there before: {args.out / 'images'}")
    # The process that finishes last finds everything there, and gathers it.
    if all(folder.holds(request.name) for request in wanted):
        _gather(args, folder, wanted)
    return 0


def show(made: Iterable[str], *, num_images: int) -> None:
    """A bar with rate and time left while images are made."""
    from tqdm import tqdm

    for _ in tqdm(made, total=num_images, unit="image", file=sys.stderr):
        pass


def _check_npz(args: SampleFlags, *, is_complete: bool) -> None:
    """A file that is there already can only be of these images where none of them is missing."""
    if args.npz is None or args.force:
        return
    if args.npz.is_dir():
        raise InputError(f"--npz {args.npz}: is a folder; name a file in it")
    if args.npz.exists() and not is_complete:
        raise InputError(f"--npz {args.npz}: is already there; --force replaces it")


def _gather(args: SampleFlags, folder: "ImageFolder", wanted: list[Request]) -> None:
    names = [request.name for request in wanted]
    if args.grid:
        print(f"grid: {folder.write_grid(names)}")
    if args.npz is not None:
        labels = [request.label for request in wanted if request.label is not None]
        folder.write_npz(args.npz, names, labels or None, force=args.force)
        print(f"npz: {args.npz}")
