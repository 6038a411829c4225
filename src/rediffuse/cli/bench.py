"""`rediffuse bench`: measure the speed of a model on this machine."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from rediffuse.cli.console import bars
from rediffuse.cli.flags import MODEL, CommandFlags
from rediffuse.cli.result import Result
from rediffuse.errors import ConfigError
from rediffuse.models.config import PrecisionChoice
from rediffuse.records import dump

GROUPS = {
    "Usual": ("--model", "--parts", "--out", "--device"),
    "Comparators": ("--reference", "--diffusers"),
    "Measurement": ("--precisions", "--batch-sizes", "--rounds", "--clock", "--num-images", "--force"),
}


@dataclass(frozen=True, kw_only=True)
class BenchFlags(CommandFlags):
    """Measure the speed of a model: images per second, memory, and the share of this machine's matrix rate.

    Everything is measured alternately in one process, and compared with the plain path of the model: float32, channels
    outermost, every operation by itself. Exit status: 0 done, 2 usage error.
    """

    groups = GROUPS

    model: Annotated[str, MODEL] = "default"
    """A model folder, a checkpoint, a published name, owner/name on the hub, or the embedded default."""
    parts: tuple[Literal["forward", "round_trip", "train", "job", "start"], ...] = ("forward", "round_trip")
    """What to measure: one call of the network, inversion with reconstruction, a training step, files to verdicts in
    one process, the command `detect` from its start with and without evidence (the last two: only the default
    model)."""
    precisions: tuple[PrecisionChoice, ...] = ("fp32", "auto")
    """Number formats inside the network; auto is bf16 where the device has instructions for it, else fp32."""
    batch_sizes: tuple[int, ...] = (1, 16)
    """Images per call of the network; train and job use the largest."""
    rounds: int = 5
    """Measurements of each; the median counts."""
    clock: Literal["wall", "cpu"] = "wall"
    """wall, or the processor time of all threads (cpu), which other programs on the machine disturb less."""
    num_images: int = 16
    """Files of the parts job and start."""
    reference: Path | None = None
    """Also measure the guided-diffusion in this folder, which holds its package guided_diffusion."""
    diffusers: bool = False
    """Also measure a network of the same widths in diffusers (`pip install "rediffuse[bench]"`)."""
    out: Path | None = None
    """Folder that keeps the result of each part; the same command measures only the missing ones."""
    device: str = "auto"
    """cpu, cuda, cuda:1 or mps; auto takes a GPU where there is one."""
    force: bool = False
    """Measure every part again."""


def run(args: BenchFlags) -> Result:
    """The tables of the parts."""
    if not args.parts:
        raise ConfigError("--parts: at least one of forward, round_trip, train, job, start is needed")

    from rediffuse.bench.parts import Options
    from rediffuse.bench.results import bench, tables
    from rediffuse.bench.subjects import architecture
    from rediffuse.zoo.model import load
    from rediffuse.zoo.precision import choose_precision

    model = load(args.model, device=args.device)
    model.require_rgb_unet("be measured")
    architecture(model)
    options = Options(
        precisions=tuple(dict.fromkeys(choose_precision(one, model.device) for one in args.precisions)),
        batch_sizes=args.batch_sizes,
        rounds=args.rounds,
        clock=args.clock,
        reference=args.reference,
        diffusers=args.diffusers,
        num_images=args.num_images,
    )
    with bars() as progress:
        results = bench(model, args.parts, options, args.out, force=args.force, progress=progress)
    return Result(text=tables(results), record={part: dump(result) for part, result in results.items()})
