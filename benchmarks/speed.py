"""Measure the speed of three networks beside guided-diffusion and diffusers, and write the tables with their date.

    python benchmarks/speed.py --out runs/speed --reference ../guided-diffusion --diffusers

The networks are ADM at 256 px, one of 64 channels at 32 px (both with random weights), and the embedded model with its
jobs. With both comparators ADM needs about 16 GB of memory. Every part of every network has a result of its own in the
folder, so that an interrupted call continues. The tables are written to benchmarks/results/DATE-speed.md; --only names
some of the networks.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Literal

import torch
from script import read_flags

from rediffuse.allocator import keep_freed_memory
from rediffuse.bench.measure import Clock
from rediffuse.bench.parts import Options, Part
from rediffuse.bench.results import bench, tables
from rediffuse.diffusion.config import ProcessConfig
from rediffuse.files import write_bytes
from rediffuse.models.config import UNetConfig
from rediffuse.models.unet import UNetModel
from rediffuse.zoo.model import DiffusionModel, Provenance, load, resolve_device
from rediffuse.zoo.precision import choose_precision

Name = Literal["embedded", "small", "adm256"]


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Measure speed."""

    out: Path
    """Folder of the results of each part."""
    only: tuple[Name, ...] = ("embedded", "small", "adm256")
    """The networks to measure."""
    reference: Path | None = None
    """A checkout of guided-diffusion."""
    diffusers: bool = False
    """Also measure diffusers."""
    rounds: int = 5
    """Measurements of each; the median counts."""
    clock: Clock = "wall"
    """wall, or cpu: the processor time of all threads."""
    returns_memory: bool = False
    """Return freed memory to the system, as other programs do; `rediffuse bench` keeps it."""
    device: str = "auto"
    """cpu, cuda, cuda:1 or mps; auto takes a GPU where there is one."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network, and what is measured of it."""

    title: str
    model: Callable[[torch.device], DiffusionModel]
    batch_sizes: tuple[int, ...]
    parts: tuple[Part, ...]
    most_rounds: int = 100


def main(flags: Flags) -> None:
    if not flags.returns_memory:
        keep_freed_memory()
    device, sections = resolve_device(flags.device), []
    options = Options(
        precisions=tuple(dict.fromkeys(("fp32", choose_precision("auto", device)))),
        rounds=flags.rounds,
        clock=flags.clock,
        reference=flags.reference,
        diffusers=flags.diffusers,
        num_images=16,
    )
    for name in flags.only:
        case = CASES[name]
        model = case.model(device)
        rounds = min(flags.rounds, case.most_rounds)
        case_options = replace(options, batch_sizes=case.batch_sizes, rounds=rounds)
        results = bench(model, case.parts, case_options, flags.out / name)
        sections.append(f"## {case.title}\n\n{tables(results)}\n")
        print(sections[-1], flush=True)
    what = "speed-memory-returned" if flags.returns_memory else "speed"
    path = Path(__file__).parent / "results" / f"{date.today().isoformat()}-{what}.md"
    command = "python benchmarks/speed.py --help"
    text = "\n".join([f"# Speed\n\n`{command}` describes the measurement.\n", *sections])
    write_bytes(path, text.encode())
    print(path)


def _random(config: UNetConfig) -> Callable[[torch.device], DiffusionModel]:
    def build(device: torch.device) -> DiffusionModel:
        torch.manual_seed(0)
        return DiffusionModel(
            network=UNetModel(config).eval().to(device),
            process_config=ProcessConfig(),
            provenance=Provenance(source="random weights", sha256=f"{config.model_channels}x{config.image_size}"),
        )

    return build


CASES: dict[Name, Case] = {
    "embedded": Case(
        title="The embedded model",
        model=lambda device: load("default", device=device),
        batch_sizes=(1, 16),
        parts=("forward", "round_trip", "train", "job", "start"),
    ),
    "small": Case(
        title="32 px, 64 channels",
        model=_random(
            UNetConfig(
                image_size=32,
                model_channels=64,
                out_channels=6,
                channel_mult=(1, 2, 2),
                attention_resolutions=(2, 4),
                num_head_channels=32,
                use_scale_shift_norm=True,
                resblock_updown=True,
            )
        ),
        batch_sizes=(1, 32),
        parts=("forward", "train"),
    ),
    "adm256": Case(
        title="ADM, 256 px",
        model=_random(
            UNetConfig(
                image_size=256,
                model_channels=256,
                out_channels=6,
                channel_mult=(1, 1, 2, 2, 4, 4),
                attention_resolutions=(8, 16, 32),
                num_head_channels=64,
                use_scale_shift_norm=True,
                resblock_updown=True,
            )
        ),
        batch_sizes=(1,),
        parts=("forward",),
        most_rounds=2,  # a call takes up to 14 s
    ),
}


if __name__ == "__main__":
    main(read_flags(Flags))
