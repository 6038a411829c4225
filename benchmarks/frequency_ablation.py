"""Measure the effect of spectral gates and presets on U-Nets, and compare detectors on their reconstruction errors.

    python benchmarks/frequency_ablation.py --photos PHOTOS --out runs/ablation

There are two families. `small`: U-Nets that this script trains from random weights, once per seed: without gates, with
gates, and gates on the frozen U-Net without gates. `embedded`: the model of the package, and gates trained on it, once
per seed. Presets need no training. The generated images of all detectors are samples of the embedded model; the model
that reconstructs them varies. All results are kept below --out: a killed call can be repeated and continues, and a
finished one prints its tables.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import frequency_cost
from ablation.detectors import GENERATED, REAL, Detectors
from ablation.networks import Networks
from ablation.quality import Quality
from ablation.report import Report
from ablation.work import SIZES, Work
from script import read_flags

from rediffuse.zoo.model import load, resolve_device


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Train, measure and print all variants."""

    photos: Path
    """Folder with train/, validation/ and test/, each with one subfolder per class."""
    out: Path
    size: Literal["auto", "small", "large"] = "auto"
    """small: within an hour on two cores. large: for an accelerator. auto: large where there is one."""
    num_seeds: int = 3
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto takes a GPU where there is one."""


def main(args: Flags) -> None:
    device = resolve_device(args.device)
    size = ("small" if device.type == "cpu" else "large") if args.size == "auto" else args.size
    work = Work(photos=args.photos, out=args.out, size=SIZES[size], device=device)
    networks = Networks(work)
    quality, detectors = Quality(work, networks), Detectors(work)
    variants = networks.variants()
    detected = [variant for variant in variants if variant.family == "embedded" or variant.frequency == "trained"]
    seeds = range(args.num_seeds)

    report = Report(args.out, size, work.size, args.num_seeds)
    cost = work.kept("cost", lambda: {"rows": frequency_cost.rows(load("default", device=device), 32, 9)})
    report.cost(cost["rows"])
    for seed in seeds:
        for variant in variants:
            quality.measure(variant, seed)
    for seed in seeds:
        for variant in detected:
            detectors.measure(variant, seed)
        detectors.shipped(seed)
    report.quality({variant: [quality.measure(variant, seed) for seed in seeds] for variant in variants})
    report.detectors({variant: [detectors.measure(variant, seed) for seed in seeds] for variant in detected})
    report.swaps([detectors.measure(one, seed) for one in detected if detectors.is_swapped(one) for seed in seeds])
    report.shipped([detectors.shipped(seed) for seed in seeds])
    report.spectra({"real": detectors.reconstructed(REAL), "generated": detectors.reconstructed(GENERATED)})
    report.gates([load(networks.gates("embedded", "default", seed)).network for seed in seeds])
    report.write()


if __name__ == "__main__":
    main(read_flags(Flags))
