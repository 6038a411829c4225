"""`rediffuse models`: what has a name, and fetching it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from rediffuse.errors import InputError, nearest
from rediffuse.files import sha256_of
from rediffuse.zoo.fetch import default_cache, fetch_published, known_sha256, published_path
from rediffuse.zoo.published import DEFAULT, FEATURE_NETWORKS, PUBLISHED, PublishedFile, default_folder

if TYPE_CHECKING:
    from rediffuse.zoo.download import Progress


@dataclass(frozen=True, kw_only=True)
class ModelsFlags:
    """List what has a name: the embedded default, the models that OpenAI published, the network of `eval fid`."""

    cache: Path | None = None
    """Folder of the downloads; beside the Hugging Face hub's cache if not given."""


@dataclass(frozen=True, kw_only=True)
class FetchFlags:
    """Download a published file, or verify the one that is here. A download that broke off is taken up.

    The checksum of the first download is recorded; later ones and every use are held against it. The feature network is
    a program that `rediffuse eval fid` runs: give its --sha256 where you know it.
    """

    name: tyro.conf.Positional[str]
    """One of the names that `rediffuse models` lists."""
    sha256: str | None = None
    """What the file has to be; kept only if it is."""
    cache: Path | None = None
    """Folder of the downloads; beside the Hugging Face hub's cache if not given."""


def run(args: ModelsFlags) -> int:
    """Print the table of models."""
    cache = args.cache or default_cache()
    rows = [("name", "kind", "size", "here", "sha256", "address"), _default_row()]
    rows += [_row(name, model.kind, model, cache) for name, model in PUBLISHED.items()]
    rows += [_row(name, "features", script, cache) for name, script in FEATURE_NETWORKS.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    print(
        "\nSizes are about 4 bytes per parameter. Where no sha256 is listed, none is published: the first download is"
    )
    print(f"trusted, recorded, and later ones are held against it. Downloads lie in {cache}")
    return 0


def fetch(args: FetchFlags) -> int:
    """Download one file and say where it lies."""
    if args.name == DEFAULT:
        print(f"{DEFAULT} is part of this installation: {default_folder()}")
        return 0
    by_name: dict[str, PublishedFile] = {**PUBLISHED, **FEATURE_NETWORKS}
    if args.name not in by_name:
        raise InputError(f"{args.name}: nothing published has this name{nearest(args.name, by_name)}")
    published = by_name[args.name]
    with _bar(published.file) as progress:
        path = fetch_published(published, args.cache or default_cache(), sha256=args.sha256, progress=progress)
    print(f"{path}\nsha256 {known_sha256(published, path)}")
    return 0


def _default_row() -> tuple[str, ...]:
    weights = default_folder() / "model.safetensors"
    if not weights.is_file():
        return (DEFAULT, "unet", "-", "no", "-", str(default_folder()))
    return (DEFAULT, "unet", _size(weights.stat().st_size), "yes", sha256_of(weights), str(default_folder()))


def _row(name: str, kind: str, published: PublishedFile, cache: Path) -> tuple[str, ...]:
    path = published_path(published, cache)
    here = "yes" if path.is_file() else "no"
    sha256 = known_sha256(published, path) or "-"
    return (name, kind, _size(published.min_bytes), here, sha256, published.address)


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"


@contextmanager
def _bar(name: str) -> Iterator["Progress"]:
    from tqdm import tqdm

    with tqdm(desc=name, unit="B", unit_scale=True, unit_divisor=1000) as bar:

        def show(done: int, total: int | None) -> None:
            if bar.total is None:
                bar.initial = bar.n = done  # what an earlier call brought is not counted into the rate
            bar.total = total
            bar.update(done - bar.n)

        yield show
