"""`rediffuse eval nll`: bits per dimension of images under a model."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rediffuse.cli.console import bar
from rediffuse.cli.dire import choose_classes
from rediffuse.cli.flags import MODEL, PATHS, Argument, CommandFlags
from rediffuse.cli.paths import expand_stdin
from rediffuse.cli.result import Result
from rediffuse.errors import ConfigError, InputError
from rediffuse.images.limits import Decoding

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EvalNllFlags(Decoding, CommandFlags):
    """Bits per dimension of images under a model (an upper bound), and the terms of the bound.

    Exit status: 0 done, 1 some images could not be read, 2 usage error.
    """

    paths: Annotated[tuple[str, ...], PATHS]
    """Image files, folders (searched recursively) or glob patterns; - reads paths from standard input."""
    model: Annotated[str, MODEL] = "default"
    """A model folder, a checkpoint, a published name, owner/name on the hub, or the embedded default."""
    steps: int | None = None
    """Number of timesteps of the model's chain to use, evenly spread; all of them if not given."""
    seed: int = 0
    """Random seed: the noise of image number i has the seed `seed` + i."""
    class_: Annotated[int | None, Argument(name="class")] = None
    """The class of every image, for a class-conditional model."""
    labels: Path | None = None
    """CSV file with the columns path and label: the class of each image, for a class-conditional model."""
    out: Path | None = None
    """Also write an .npz: vb_terms, xstart_mse and mse by timestep, and total_bpd of every image."""
    force: bool = False
    """Replace the .npz if it exists."""
    batch_size: int = 16
    """Images per call of the network."""
    device: str = "auto"
    """cpu, cuda, cuda:1 or mps; auto takes a GPU where there is one."""


def run(args: EvalNllFlags) -> Result:
    """The mean and its terms; status 1 if an image could not be read."""
    if args.out is not None and args.out.suffix != ".npz":
        raise ConfigError(f"--out {args.out}: a name that ends in .npz is needed")
    if args.out is not None and args.out.exists() and not args.force:
        raise InputError(f"{args.out}: exists already; --force replaces it")

    from rediffuse.dire.labels import with_classes
    from rediffuse.evaluation.likelihood import likelihoods
    from rediffuse.images.find import each_image
    from rediffuse.zoo.model import load

    found = list(each_image(expand_stdin(args.paths), args.decoding))
    classes = choose_classes(args.class_, args.labels)
    model = load(args.model, device=args.device)
    model.require_rgb_unet("give a likelihood of images")
    files = list(with_classes(found, model.num_classes, classes))
    with bar(total=len(files), unit="image") as shown:
        found = likelihoods(
            model,
            files,
            steps=args.steps,
            seed=args.seed,
            batch_size=args.batch_size,
            progress=shown.update,
        )
    for reason in found.failures:
        LOGGER.error("%s", reason)
    if args.out is not None:
        found.save(args.out)
    bits = found.bits
    terms = {
        "prior": float(bits.prior.mean()),
        "t > 0": float(bits.vb[:, :-1].sum(dim=1).mean()),
        "t = 0": float(bits.vb[:, -1].mean()),
    }
    total, num_timesteps = float(bits.total.mean()), bits.vb.shape[1]
    lines = [f"bits per dimension  {total:.4f}  ({len(found.names):,} images, {num_timesteps} timesteps)"]
    lines += [f"  {name:<16}  {value:.4f}" for name, value in terms.items()]
    return Result(
        text="\n".join([*lines, *([f"terms: {args.out}"] if args.out else [])]),
        record={
            "bits_per_dimension": total,
            "terms": terms,
            "num_images": len(found.names),
            "num_timesteps": num_timesteps,
            "failures": found.failures,
            **({"out": args.out} if args.out else {}),
        },
        status=1 if found.failures else 0,
    )
