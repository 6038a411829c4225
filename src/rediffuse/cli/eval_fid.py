"""`rediffuse eval fid`: how near samples are to a reference."""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from rediffuse.errors import ConfigError

if TYPE_CHECKING:
    from rediffuse.evaluation.batches import ImageSet
    from rediffuse.evaluation.compare import Comparison, SetStatistics
    from rediffuse.evaluation.features import FeatureNetwork


@dataclass(frozen=True, kw_only=True)
class EvalFidFlags:
    """FID, sFID, inception score, precision and recall of samples against a reference.

    Both may be .npz files as guided-diffusion writes them (a reference may bring its statistics) or folders of images.
    """

    samples: tyro.conf.Positional[str]
    """An .npz of samples, or a folder of images."""
    reference: tyro.conf.Positional[str]
    """An .npz of images or statistics, or a folder of images."""
    network: str
    """The feature network: inception-2015-12-05, once `rediffuse models fetch` has brought it, or a TorchScript file
    that is called as it is. Such a file is a program and is run: take it from a source you trust."""
    sha256: str | None = None
    """What the network's file has to be, checked before it is run; what was recorded when it was fetched, if not
    given."""
    size: int | None = None
    """Scale and cut all images to squares of this side; as they are if not given."""
    cache: Path | None = None
    """Folder where the statistics are kept for the next time, by content."""
    json: bool = False
    """Print JSON instead of a table."""
    batch_size: int = 64
    """Images per call of the network."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto takes a GPU where there is one."""


def run(args: EvalFidFlags) -> int:
    """Print the figures; 1 where an image could not be read."""
    if args.batch_size < 1:
        raise ConfigError(f"batch_size={args.batch_size}: at least 1 is needed")

    from rediffuse.evaluation.batches import open_set
    from rediffuse.evaluation.compare import compare
    from rediffuse.evaluation.features import find_feature_network, load_feature_network
    from rediffuse.zoo.model import resolve_device

    sets = [open_set(path, args.size) for path in (args.samples, args.reference)]
    path, recorded = find_feature_network(args.network)
    network = load_feature_network(path, device=resolve_device(args.device), sha256=args.sha256 or recorded)
    samples, reference = (_statistics(images, network, args) for images in sets)
    figures = compare(samples, reference, device=network.device)
    if args.json:
        print(json.dumps(_record(args, figures, samples, reference, network), indent=2))
    else:
        _print(figures, samples, reference, network)
    failures = [*samples.failures, *reference.failures]
    for reason in failures:
        print(f"rediffuse: {reason}", file=sys.stderr)
    return 1 if failures else 0


def _statistics(images: "ImageSet", network: "FeatureNetwork", args: EvalFidFlags) -> "SetStatistics":
    from tqdm import tqdm

    from rediffuse.evaluation.compare import statistics_of

    total = None if images.images is None else len(images.images)
    with tqdm(total=total, desc=Path(images.path).name, unit="image", file=sys.stderr, disable=total is None) as bar:
        return statistics_of(images, network, batch_size=args.batch_size, cache=args.cache, progress=bar.update)


def _record(
    args: EvalFidFlags,
    figures: "Comparison",
    samples: "SetStatistics",
    reference: "SetStatistics",
    network: "FeatureNetwork",
) -> dict[str, object]:
    return {
        **asdict(figures),
        "samples": args.samples,
        "num_samples": samples.num_images,
        "reference": args.reference,
        "num_reference": reference.num_images,
        "network_sha256": network.sha256,
    }


def _print(
    figures: "Comparison", samples: "SetStatistics", reference: "SetStatistics", network: "FeatureNetwork"
) -> None:
    no_images = "one of the two has statistics alone, or fewer than 4 images"
    rows = [
        ("FID", figures.fid, ""),
        ("sFID", figures.sfid, network.why_no_spatial or "one of the two has no spatial statistics"),
        ("Inception score", figures.inception_score, "the samples have statistics alone"),
        ("Precision", figures.precision, no_images),
        ("Recall", figures.recall, no_images),
    ]
    for name, value, why_not in rows:
        print(f"{name:<16} {f'{value:.4f}' if value is not None else f'- ({why_not})'}")
    counts = [f"{seen.num_images:,} images" if seen.num_images else "given statistics" for seen in (samples, reference)]
    print(f"\n{counts[0]} against {counts[1]}; figures of different numbers of images do not compare")
