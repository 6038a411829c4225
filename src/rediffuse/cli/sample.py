"""`rediffuse sample`: generate images, each from its own seed."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rediffuse.cli.console import track
from rediffuse.cli.flags import MODEL, Argument, CommandFlags
from rediffuse.cli.ranks import common_batch_size, ranks
from rediffuse.cli.result import Result
from rediffuse.errors import ConfigError, InputError
from rediffuse.models.config import BatchSize, PrecisionChoice, check_batch_size
from rediffuse.sampling.config import Progressive, Request, SampleRecord, SamplingSettings
from rediffuse.sampling.numbers import LARGEST_SEED, parse_classes, parse_numbers, requests

if TYPE_CHECKING:
    from rediffuse.sampling.folder import ImageFolder


GROUPS = {
    "Images": ("--model", "--seeds", "--class", "--sampler", "--steps", "--spacing", "--classifier", "--scale"),
    "Results": ("--grid", "--npz", "--progressive", "--force"),
    "Speed": ("--batch-size", "--device", "--precision"),
}


@dataclass(frozen=True, kw_only=True)
class SampleFlags(CommandFlags):
    """Generate images. Those that already exist are skipped; under torchrun, processes share the seeds."""

    groups = GROUPS

    out: Path
    """Folder for images/, settings.json, and the files of other flags."""
    model: Annotated[str, MODEL] = "default"
    """A model folder, a checkpoint, a published name, owner/name on the hub, or the embedded default."""
    seeds: Annotated[str, Argument(metavar="RANGES")] = "0-63"
    """One image per seed: numbers and ranges, such as 7, 0-63 or 0-9,20. An image depends only on its own seed."""
    class_: Annotated[str | None, Argument(name="class", metavar="RANGES|cycle")] = None
    """Required if there are classes: one (3), several (0-9) or all of them (cycle). With n of them, seed s gets class
    number s modulo n."""
    sampler: str = SamplingSettings.sampler
    """ddim, ddpm, dpm_solver (DPM-Solver++ 2M) or heun."""
    steps: int = SamplingSettings.steps
    """Length of the timestep grid: network calls per image, for heun almost twice as many."""
    spacing: str = SamplingSettings.spacing
    """Spacing of the timesteps: even, karras, timesteps:T,T,... or sigmas:S,S,..."""
    eta: float = SamplingSettings.eta
    """DDIM's eta, from 0 (deterministic) to 1 (as much noise as DDPM)."""
    clip: bool = SamplingSettings.clip
    """Clip the predicted x_0 to [-1, 1] in every step."""
    frequency: str = SamplingSettings.frequency
    """Filter on the model's skip connections: trained (none but its own spectral gates), off, freeu, freeu:B, sharpen
    or lowpass."""
    prompt: str = SamplingSettings.prompt
    """The text that conditions the model, for a model with prompts."""
    guidance_scale: float = SamplingSettings.guidance_scale
    """Scale of classifier-free guidance by the prompt or the class; 1 is without guidance."""
    classifier: Annotated[str | None, MODEL] = None
    """A classifier of noisy images for classifier guidance: a folder, a checkpoint or a published name."""
    scale: float | None = None
    """Scale of the classifier guidance; 1 if not given."""
    npz: Path | None = None
    """Also write all images, and their classes, to this .npz file in guided-diffusion's format."""
    grid: bool = False
    """Also write grid.png: the images of this call side by side (the first 1024)."""
    progressive: Progressive | None = None
    """Also save the steps from noise to each image, x_t above and the predicted x_0 below, as one picture or as a
    GIF."""
    precision: PrecisionChoice = "auto"
    """Number format inside the network. auto is that of the images in --out, if there are any; else bf16 if the
    processor or GPU has instructions for it, else fp32."""
    batch_size: BatchSize = "auto"
    """Images per call of the network. auto is the fastest number for long jobs, by a short measurement, and else 16, or
    fewer if memory is short."""
    device: str = "auto"
    """cpu, cuda, cuda:1 or mps; auto takes a GPU where there is one. offload, or offload:cuda:1, keeps the parts of a
    pipeline of diffusers in main memory, and only the part that computes on the GPU."""
    force: bool = False
    """Generate every image again, and remove images of other settings from the folder."""


def run(args: SampleFlags) -> Result:
    """Fill the folder and count the images."""
    settings = SamplingSettings(
        sampler=args.sampler,
        steps=args.steps,
        spacing=args.spacing,
        eta=args.eta,
        clip=args.clip,
        frequency=args.frequency,
        prompt=args.prompt,
        guidance_scale=args.guidance_scale,
    )
    seeds = parse_numbers(args.seeds, "--seeds", LARGEST_SEED)
    if args.scale is not None and args.classifier is None:
        raise ConfigError(f"--scale {args.scale}: needs --classifier")
    check_batch_size(args.batch_size)
    own_ranks = ranks()
    if args.force:
        own_ranks.refuse("--force", "remove the folder before")

    from rediffuse.sampling.folder import ImageFolder
    from rediffuse.sampling.guide import guide
    from rediffuse.sampling.job import fill_with_samples, sampling_batch_size, sampling_precision
    from rediffuse.sampling.sample import check
    from rediffuse.zoo.model import load, load_classifier

    device = own_ranks.own_device(args.device)
    model = load(args.model, device=device)
    settings = replace(settings, precision=sampling_precision(args.precision, model, args.out))
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
    # Each process takes its share before it checks which images are missing, so that all of them divide the same list.
    own = list(own_ranks.share(wanted))
    check(model, settings, "unet", num_samples=len(wanted))
    with ImageFolder(args.out, record, progressive=args.progressive, force=args.force) as folder:
        is_there = {request.name for request in wanted if folder.holds(request.name)}
        _check_npz(args, is_complete=len(is_there) == len(wanted))
        todo = [request for request in own if args.force or request.name not in is_there]
        given = common_batch_size(args.batch_size, is_shared=bool(own_ranks.part))
        size = sampling_batch_size(given, model, settings, num_images=len(own), folder=args.out)
        made = fill_with_samples(model, todo, settings, folder=folder, guidance=guidance, batch_size=size)
        num_made = sum(1 for _ in track(made, len(todo)))
        num_existing, images = len(own) - len(todo), args.out / "images"
        # The last process to finish finds all images, and writes the files with all of them.
        is_whole = all(folder.holds(request.name) for request in wanted)
        gathered = _gather(args, folder, wanted) if is_whole else {}
    lines = [f"{num_made} made, {num_existing} existing: {images}"]
    return Result(
        text="\n".join([*lines, *(f"{name}: {path}" for name, path in gathered.items())]),
        record={"num_made": num_made, "num_existing": num_existing, "images": images, **gathered},
    )


def _check_npz(args: SampleFlags, *, is_complete: bool) -> None:
    """Raise an error for an existing file if an image is missing: then the file cannot hold exactly these images."""
    if args.npz is None or args.force:
        return
    if args.npz.is_dir():
        raise InputError(f"--npz {args.npz}: is a folder; give a file in it")
    if args.npz.exists() and not is_complete:
        raise InputError(f"--npz {args.npz}: exists already; --force replaces it")


def _gather(args: SampleFlags, folder: "ImageFolder", wanted: list[Request]) -> dict[str, Path]:
    """Write the files that contain all images; returns their paths by name."""
    names = [request.name for request in wanted]
    written = {}
    if args.grid:
        written["grid"] = folder.write_grid(names)
    if args.npz is not None:
        labels = [request.label for request in wanted if request.label is not None]
        folder.write_npz(args.npz, names, labels or None, force=args.force)
        written["npz"] = args.npz
    return written
