"""`rediffuse eval fid`: FID and related figures of samples against a reference."""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rediffuse.cli.console import bar
from rediffuse.cli.flags import Argument, CommandFlags
from rediffuse.cli.result import Result
from rediffuse.errors import ConfigError
from rediffuse.images.limits import Decoding

if TYPE_CHECKING:
    from rediffuse.evaluation.batches import ImageSet
    from rediffuse.evaluation.compare import Comparison, SetStatistics
    from rediffuse.evaluation.features import FeatureNetwork


LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EvalFidFlags(Decoding, CommandFlags):
    """FID, sFID, inception score, precision and recall of samples against a reference.

    Both may be .npz files as guided-diffusion writes them (a reference may hold statistics) or folders of images.
    Exit status: 0 done, 1 some images could not be read, 2 usage error.
    """

    samples: Annotated[str, Argument(positional=True)]
    """An .npz of samples, or a folder of images."""
    reference: Annotated[str, Argument(positional=True)]
    """An .npz of images or statistics, or a folder of images."""
    network: Annotated[str, Argument(metavar="PATH")]
    """The feature network: inception-2015-12-05, downloaded with `rediffuse models fetch`, or a TorchScript file. Such
    a file is a program and is run: use a file from a source you trust."""
    sha256: str | None = None
    """Expected checksum of the network's file, checked before the file is run; if not given, the one recorded at the
    download."""
    size: int | None = None
    """Scale and cut all images to squares of this side, in pixels; unchanged if not given."""
    cache: Path | None = None
    """Folder for computed statistics, which later calls with the same images and network use."""
    batch_size: int = 64
    """Images per call of the network."""
    device: str = "auto"
    """cpu, cuda, cuda:1 or mps; auto takes a GPU where there is one."""


def run(args: EvalFidFlags) -> Result:
    """The figures; status 1 if an image could not be read."""
    if args.batch_size < 1:
        raise ConfigError(f"batch_size={args.batch_size}: at least 1 is needed")

    from rediffuse.evaluation.batches import open_set
    from rediffuse.evaluation.compare import compare
    from rediffuse.evaluation.features import find_feature_network, load_feature_network
    from rediffuse.zoo.model import resolve_device

    sets = [open_set(path, args.size, args.decoding) for path in (args.samples, args.reference)]
    path, recorded = find_feature_network(args.network)
    network = load_feature_network(path, device=resolve_device(args.device), sha256=args.sha256 or recorded)
    samples, reference = (_statistics(images, network, args) for images in sets)
    figures = compare(samples, reference, device=network.device)
    failures = [*samples.failures, *reference.failures]
    for reason in failures:
        LOGGER.error("%s", reason)
    return Result(
        text=_table(figures, samples, reference, network),
        record={**_record(args, figures, samples, reference, network), "failures": failures},
        status=1 if failures else 0,
    )


def _statistics(images: "ImageSet", network: "FeatureNetwork", args: EvalFidFlags) -> "SetStatistics":
    from rediffuse.evaluation.compare import statistics_of

    total = None if images.images is None else len(images.images)
    with bar(total=total, desc=Path(images.path).name, unit="image") as shown:
        return statistics_of(images, network, batch_size=args.batch_size, cache=args.cache, progress=shown.update)


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


def _table(
    figures: "Comparison", samples: "SetStatistics", reference: "SetStatistics", network: "FeatureNetwork"
) -> str:
    no_images = "one of the two has only statistics, or fewer than 4 images"
    rows = [
        ("FID", figures.fid, ""),
        ("sFID", figures.sfid, network.why_no_spatial or "one of the two has no spatial statistics"),
        ("Inception score", figures.inception_score, "the samples have only statistics"),
        ("Precision", figures.precision, no_images),
        ("Recall", figures.recall, no_images),
    ]
    lines = [f"{name:<16} {f'{value:.4f}' if value is not None else f'- ({why})'}" for name, value, why in rows]
    counts = [f"{seen.num_images:,} images" if seen.num_images else "given statistics" for seen in (samples, reference)]
    note = f"{counts[0]} against {counts[1]}; do not compare figures of different numbers of images"
    return "\n".join([*lines, "", note])
