"""`rediffuse eval nll`: bits per dimension of images under a model."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from rediffuse.cli.dire import choose_labels
from rediffuse.errors import ConfigError, InputError


@dataclass(frozen=True, kw_only=True)
class EvalNllFlags:
    """Bits per dimension of images under a model (an upper bound), and the terms that they consist of."""

    paths: tyro.conf.Positional[tuple[str, ...]]
    """Image files, folders (searched recursively) or glob patterns."""
    model: str = "default"
    """A model folder, a checkpoint, a published name, or the embedded default."""
    steps: int | None = None
    """Keep so many timesteps of the model's chain, evenly spread; all of them if not given."""
    seed: int = 0
    """The noise of the i-th image comes from seed + i: not from its batch."""
    class_: Annotated[int | None, tyro.conf.arg(name="class")] = None
    """The class of every image, for a class-conditional model."""
    labels: Path | None = None
    """CSV file with the columns path and label: the class of each image, for a class-conditional model."""
    out: Path | None = None
    """An .npz for vb_terms, xstart_mse and mse by timestep, and total_bpd of every image."""
    force: bool = False
    """Replace the .npz if it is there."""
    batch_size: int = 16
    """Images per call of the network."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto takes a GPU where there is one."""


def run(args: EvalNllFlags) -> int:
    """Print the mean and its terms; 1 where an image could not be read."""
    if args.out is not None and args.out.suffix != ".npz":
        raise ConfigError(f"--out {args.out}: a name that ends in .npz is needed")
    if args.out is not None and args.out.exists() and not args.force:
        raise InputError(f"{args.out}: is there already; --force replaces it")

    from tqdm import tqdm

    from rediffuse.dire.job import check_labels
    from rediffuse.evaluation.likelihood import likelihoods
    from rediffuse.images.find import find_images
    from rediffuse.zoo.model import load

    files = find_images(args.paths)
    labels = choose_labels(args.class_, args.labels, [found.name for found in files])
    model = load(args.model, device=args.device)
    check_labels(model, files, labels)
    with tqdm(total=len(files), unit="image", file=sys.stderr) as bar:
        found = likelihoods(
            model,
            files,
            steps=args.steps,
            seed=args.seed,
            batch_size=args.batch_size,
            labels=labels,
            progress=bar.update,
        )
    for reason in found.failures:
        print(f"rediffuse: {reason}", file=sys.stderr)
    bits = found.bits
    print(f"bits per dimension  {bits.total.mean():.4f}  ({len(found.names):,} images, {bits.vb.shape[1]} timesteps)")
    print(f"  prior             {bits.prior.mean():.4f}")
    print(f"  t > 0             {bits.vb[:, :-1].sum(dim=1).mean():.4f}")
    print(f"  t = 0             {bits.vb[:, -1].mean():.4f}")
    if args.out is not None:
        found.save(args.out)
        print(f"terms: {args.out}")
    return 1 if found.failures else 0
