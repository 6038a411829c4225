"""`rediffuse upscale`: enlarge images, or samples of a smaller model, with a super-resolution model."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rediffuse.cli.console import track
from rediffuse.cli.flags import MODEL, PATHS, Argument, CommandFlags
from rediffuse.cli.paths import expand_stdin
from rediffuse.cli.ranks import common_batch_size, ranks
from rediffuse.cli.result import Result
from rediffuse.errors import ConfigError
from rediffuse.images.config import Crop
from rediffuse.images.limits import Decoding
from rediffuse.models.config import BatchSize, PrecisionChoice, check_batch_size
from rediffuse.sampling.config import SamplingSettings, UpscaleRecord

if TYPE_CHECKING:
    from rediffuse.sampling.small import SmallImage
    from rediffuse.zoo.model import DiffusionModel


LOGGER = logging.getLogger(__name__)

GROUPS = {
    "Images": ("--sampler", "--steps", "--spacing", "--seed", "--class", "--small-size", "--crop"),
    "Results": ("--force",),
    "Speed": ("--batch-size", "--device", "--precision"),
}


@dataclass(frozen=True, kw_only=True)
class UpscaleFlags(Decoding, CommandFlags):
    """Enlarge images. Results that already exist are skipped; under torchrun, processes share the images.

    Exit status: 0 done, 1 some files failed, 2 usage error.
    """

    groups = GROUPS

    paths: Annotated[tuple[str, ...], PATHS]
    """Image files, folders or glob patterns, scaled down to the model's input size; or one .npz of samples of that
    size; - reads paths from standard input."""
    model: Annotated[str, MODEL]
    """The super-resolution model: a folder, a checkpoint or a published name."""
    out: Path
    """Folder for images/, small/ (the inputs) and settings.json."""
    small_size: int | None = None
    """Side of the model's input, in pixels; required if the model does not record it."""
    crop: Crop = "center"
    """How images are scaled down: the shorter side, then the middle cut out; or both sides, squashed."""
    class_: Annotated[int | None, Argument(name="class")] = None
    """The class of every image, for a class-conditional model; an .npz may include its own (arr_1)."""
    seed: int = 0
    """Random seed: the noise of an image depends only on it and on the image's input pixels."""
    sampler: str = SamplingSettings.sampler
    """ddim, ddpm, dpm_solver (DPM-Solver++ 2M) or heun."""
    steps: int = SamplingSettings.steps
    """Length of the timestep grid: network calls per image, for heun almost twice as many."""
    spacing: str = SamplingSettings.spacing
    """Spacing of the timesteps: even, karras, timesteps:T,T,... or sigmas:S,S,..."""
    eta: float = SamplingSettings.eta
    """DDIM's eta, from 0 (deterministic) to 1 (as much noise as DDPM)."""
    frequency: str = SamplingSettings.frequency
    """Filter on the model's skip connections: trained (none but its own spectral gates), off, freeu, freeu:B, sharpen
    or lowpass."""
    precision: PrecisionChoice = "auto"
    """Number format inside the network. auto is that of the images in --out, if there are any; else bf16 if the
    processor or GPU has instructions for it, else fp32."""
    batch_size: BatchSize = "auto"
    """Images per call of the network. auto is the fastest number for long jobs, by a short measurement, and else 16, or
    fewer if memory is short."""
    device: str = "auto"
    """cpu, cuda, cuda:1 or mps; auto takes a GPU where there is one."""
    force: bool = False
    """Enlarge every image again, and remove images of other settings from the folder."""


def run(args: UpscaleFlags) -> Result:
    """Fill the folder; status 1 if a file could not be read."""
    settings = SamplingSettings(
        sampler=args.sampler, steps=args.steps, spacing=args.spacing, eta=args.eta, frequency=args.frequency
    )
    check_batch_size(args.batch_size)
    own_ranks = ranks()
    if args.force:
        own_ranks.refuse("--force", "remove the folder before")
    if not 0 <= args.seed < 2**32:
        raise ConfigError(f"--seed {args.seed}: 0 to {2**32 - 1} are allowed")

    from rediffuse.sampling.folder import ImageFolder
    from rediffuse.sampling.job import fill_with_enlarged, sampling_batch_size, sampling_precision
    from rediffuse.sampling.small import small_size
    from rediffuse.zoo.model import load

    model = load(args.model, device=own_ranks.own_device(args.device))
    settings = replace(settings, precision=sampling_precision(args.precision, model, args.out))
    size = small_size(model, args.small_size)
    record = UpscaleRecord(
        model_sha256=model.provenance.sha256,
        settings=settings,
        small_size=size,
        crop=args.crop,
        seed=args.seed,
        label=args.class_,
    )
    claimed = ImageFolder(args.out, record, force=args.force)
    images, reasons = _read(args, model, size)
    own = list(own_ranks.share(images))
    with claimed as folder:
        todo = [small for small in own if args.force or not folder.holds(small.name, small.pixels)]
        for small in todo:
            if not args.force and folder.is_of_another(small.name, small.pixels):
                LOGGER.warning("%s: the result of another image of this name is replaced", small.name)
        given = common_batch_size(args.batch_size, is_shared=bool(own_ranks.part))
        batch_size = sampling_batch_size(given, model, settings, num_images=len(own), folder=args.out)
        made = fill_with_enlarged(model, todo, settings, folder=folder, seed=args.seed, batch_size=batch_size)
        num_made = sum(1 for _ in track(made, len(todo)))
    for reason in reasons:
        LOGGER.error("%s", reason)
    num_existing, out = len(own) - len(todo), args.out / "images"
    return Result(
        text=f"{num_made} made, {len(reasons)} failed, {num_existing} existing: {out}",
        record={"num_made": num_made, "num_existing": num_existing, "failures": reasons, "images": out},
        status=1 if reasons else 0,
    )


def _read(args: UpscaleFlags, model: "DiffusionModel", size: int) -> "tuple[list[SmallImage], list[str]]":
    from rediffuse.images.find import find_images
    from rediffuse.sampling.small import from_files, from_npz

    paths = list(expand_stdin(args.paths))
    if [Path(path).suffix for path in paths] == [".npz"]:
        return from_npz(Path(paths[0]), size, args.class_, model.num_classes), []
    return from_files(find_images(paths, args.decoding), size, args.crop, args.class_)
