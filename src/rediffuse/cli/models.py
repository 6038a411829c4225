"""`rediffuse models`: list the published models, and download them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rediffuse.cli.console import bar
from rediffuse.cli.flags import Argument, CommandFlags
from rediffuse.cli.result import Result
from rediffuse.errors import InputError, nearest
from rediffuse.files import sha256_of
from rediffuse.zoo.fetch import default_cache, fetch_published, known_sha256, published_path
from rediffuse.zoo.published import DEFAULT, FEATURE_NETWORKS, PUBLISHED, PublishedFile, default_folder

if TYPE_CHECKING:
    from rediffuse.zoo.download import Progress


@dataclass(frozen=True, kw_only=True)
class ModelsFlags(CommandFlags):
    """List the embedded model, the models that OpenAI published, and the feature network of `eval fid`.

    `rediffuse models fetch NAME` downloads one of them.
    """

    cache: Path | None = None
    """Folder of the downloads; beside the Hugging Face hub's cache if not given."""


@dataclass(frozen=True, kw_only=True)
class FetchFlags(CommandFlags):
    """Download a published file, or verify the one that was downloaded. An interrupted download is resumed.

    The checksum of the first download is recorded; later downloads and every use are compared with it. The feature
    network is a program that `rediffuse eval fid` runs: give its --sha256 if you know it.
    """

    name: Annotated[str, Argument(positional=True)]
    """One of the names that `rediffuse models` lists."""
    sha256: str | None = None
    """Expected checksum; a file with another one is refused."""
    cache: Path | None = None
    """Folder of the downloads; beside the Hugging Face hub's cache if not given."""


def run(args: ModelsFlags) -> Result:
    """The table of models."""
    cache = args.cache or default_cache()
    records = [_default_record()]
    records += [_record(name, model.kind, model, cache) for name, model in PUBLISHED.items()]
    records += [_record(name, "features", script, cache) for name, script in FEATURE_NETWORKS.items()]
    rows = [("name", "kind", "size", "here", "sha256", "address"), *map(_row, records)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += [
        "",
        "Sizes are about 4 bytes per parameter. Where no sha256 is listed, none is published: the first download is",
        f"trusted, its checksum recorded, and later ones are compared with it. Downloads are in {cache}",
    ]
    return Result(text="\n".join(lines), record={"models": records, "cache": cache})


def fetch(args: FetchFlags) -> Result:
    """Download one file and return its path."""
    if args.name == DEFAULT:
        text = f"{DEFAULT} is part of this installation: {default_folder()}"
        return Result(text=text, record={"name": DEFAULT, "path": default_folder()})
    by_name: dict[str, PublishedFile] = {**PUBLISHED, **FEATURE_NETWORKS}
    if args.name not in by_name:
        raise InputError(f"{args.name}: there is no published file of this name{nearest(args.name, by_name)}")
    published = by_name[args.name]
    with _bar(published.file) as progress:
        path = fetch_published(published, args.cache or default_cache(), sha256=args.sha256, progress=progress)
    sha256 = known_sha256(published, path)
    return Result(text=f"{path}\nsha256 {sha256}", record={"name": args.name, "path": path, "sha256": sha256})


def _default_record() -> dict[str, Any]:
    weights = default_folder() / "model.safetensors"
    is_here = weights.is_file()
    return {
        "name": DEFAULT,
        "kind": "unet",
        "num_bytes": weights.stat().st_size if is_here else None,
        "is_here": is_here,
        "sha256": sha256_of(weights) if is_here else None,
        "address": str(default_folder()),
    }


def _record(name: str, kind: str, published: PublishedFile, cache: Path) -> dict[str, Any]:
    path = published_path(published, cache)
    return {
        "name": name,
        "kind": kind,
        "num_bytes": published.min_bytes,
        "is_here": path.is_file(),
        "sha256": known_sha256(published, path),
        "address": published.address,
    }


def _row(record: dict[str, Any]) -> tuple[str, ...]:
    size = "-" if record["num_bytes"] is None else _size(record["num_bytes"])
    here = "yes" if record["is_here"] else "no"
    return record["name"], record["kind"], size, here, record["sha256"] or "-", record["address"]


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"


@contextmanager
def _bar(name: str) -> Iterator["Progress"]:
    with bar(desc=name, unit="B", unit_scale=True, unit_divisor=1000) as shown:

        def show(done: int, total: int | None) -> None:
            if shown.total is None:
                shown.initial = shown.n = done  # bytes of an earlier call do not count for the rate
            shown.total = total
            shown.update(done - shown.n)

        yield show
