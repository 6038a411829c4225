"""Sort photographs and images of real generators into groups, as data for the embedded detector.

    python benchmarks/detector_data.py --wild WILD --out FOLDER/originals
    rediffuse align FOLDER/originals FOLDER/aligned --draws 3 --size 336

WILD has real/cameras, real/clothing and generated/FAMILY. Of real/clothing only senders are used whose photographs the
network was not trained on (`window_data.is_held_out`). A group is a camera, a sender of photographs, a generator, or a
family of generators whose names the files do not tell.
"""

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from script import read_flags
from window_data import images_of, is_held_out

from rediffuse.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Copy files into real/COLLECTION/GROUP and generated/COLLECTION/GROUP."""

    wild: Path
    """Folder with real/cameras, real/clothing and generated/FAMILY."""
    out: Path
    """Folder for the copies; it must not exist yet."""
    per_sender: int = 4
    """Largest number of photographs of a sender."""


def main(args: Flags) -> None:
    if args.out.exists():
        raise ConfigError(f"--out {args.out}: exists already; the name of a new folder is needed")
    for path, group in grouped(args.wild, args.per_sender):
        (args.out / group).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, args.out / group / path.name)


def grouped(wild: Path, per_sender: int) -> Iterator[tuple[Path, str]]:
    """Files, each with the folder of its class and group, such as real/clothing/sender12."""
    for path in images_of(wild / "real" / "cameras"):
        yield path, f"real/cameras/{path.stem}"
    counts: Counter[str] = Counter()
    for path in images_of(wild / "real" / "clothing"):
        sender = path.name.split("_")[0]
        counts[sender] += 1
        if is_held_out(path) and counts[sender] <= per_sender:
            yield path, f"real/clothing/{sender}"
    for path in images_of(wild / "generated"):
        family = path.parent.name
        # Each of the previews was made by another model.
        yield path, f"generated/{family}/{path.stem}" if family == "previews_mixed" else f"generated/{family}"


if __name__ == "__main__":
    main(read_flags(Flags))
