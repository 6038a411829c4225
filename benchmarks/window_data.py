"""Make training windows for a network: small squares of photographs at several scales, re-encoded.

    python benchmarks/window_data.py --clothing CLOTHING --wild WILD --size 32 --out FOLDER

CLOTHING has 64px/train, 64px/validation and 64px/test; WILD has real/cameras and real/clothing, where the name of every
file begins with its sender. Every photograph is reduced and encoded by random histories (`images.history`). Windows are
cut out of the results: the most textured ones, as a detector chooses them, and some at random positions. Whole
pictures, reduced to the size of a window, are added, so that samples of the network still show objects.

Not in train/ are: a third of the senders (`is_held_out`), CLOTHING's validation and test files, all cameras, and every
picture that looks like one of the first two, because the folders have pictures in common. (CLOTHING/photos are
originals of validation and test files.) validation/clothing and validation/cameras hold windows of the held-out senders
and of the cameras; their side is always 64 pixels.
"""

import csv
import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from script import read_flags
from torch import Tensor
from tqdm import tqdm

from rediffuse.errors import ConfigError
from rediffuse.files import write_bytes
from rediffuse.images.crop import center_crop, squash
from rediffuse.images.decode import decode
from rediffuse.images.encode import png_bytes
from rediffuse.images.find import find_images
from rediffuse.images.history import Histories, History
from rediffuse.images.tensors import to_tensor
from rediffuse.images.windows import random_windows, textured_windows

VALIDATION_SIZE = 64
THUMBNAIL = 16
ALIKE = 10.0
"""Two thumbnails whose levels differ by less than this on average count as the same picture."""


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Cut windows out of photographs."""

    clothing: Path
    wild: Path
    out: Path
    """Folder for the windows; it must not exist yet."""
    size: int = 32
    """Side of the windows for training, in pixels."""
    textured: int = 10
    """Windows per history."""
    random: int = 5
    """Windows per history."""
    seed: int = 0


@dataclass(frozen=True)
class Cut:
    """The windows of one photograph."""

    histories: Histories
    num_histories: int
    textured: int
    random: int
    whole: bool = False
    """Cut out the middle square instead of windows."""


def main(args: Flags) -> None:
    if args.out.exists():
        raise ConfigError(f"--out {args.out}: exists already; the name of a new folder is needed")
    senders = images_of(args.wild / "real" / "clothing")
    held_out = [path for path in senders if is_held_out(path)]
    cameras = images_of(args.wild / "real" / "cameras")
    hidden = thumbnails(
        [*held_out, *images_of(args.clothing / "64px" / "validation"), *images_of(args.clothing / "64px" / "test")]
    )
    kept = {
        "senders": [path for path in senders if not is_held_out(path)],
        "64px": images_of(args.clothing / "64px" / "train"),
    }
    kept = {name: unlike(paths, hidden) for name, paths in kept.items()}
    rows = []
    for name, paths in kept.items():
        rows += write_windows(args, paths, args.out / "train" / name, training_cuts(args)[name], args.size)
    for name, paths in (("clothing", held_out), ("cameras", cameras)):
        cuts = [Cut(Histories(), 1, textured=2, random=1)]
        rows += write_windows(args, paths, args.out / "validation" / name, cuts, VALIDATION_SIZE)
    table = io.StringIO()
    writer = csv.DictWriter(table, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(args.out / "sources.csv", table.getvalue().encode())


def is_held_out(path: Path) -> bool:
    """Whether the sender of `senderNNN_MMM.jpg` is in the third that is not used for training."""
    sender = path.name.split("_")[0]
    return hashlib.sha256(sender.encode()).digest()[0] % 3 == 0


def training_cuts(args: Flags) -> dict[str, list[Cut]]:
    """The distribution for a kind of photograph: those of senders have a short side of 400 pixels, the others of 64."""
    four_windows = Histories(short_sides=(4 * args.size,))
    whole = Cut(Histories(short_sides=(args.size,), encodings=("none",)), 1, 0, 0, whole=True)
    return {
        "senders": [
            Cut(Histories(), 3, args.textured, args.random),
            Cut(four_windows, 1, textured=4, random=0),
            whole,
        ],
        "64px": [Cut(Histories(short_sides=(None,)), 1, textured=64 // args.size, random=0), whole, whole],
    }


def images_of(folder: Path) -> list[Path]:
    return [image.path for image in find_images([folder])]


def thumbnails(paths: Iterable[Path]) -> Tensor:
    """(N, 2, 3 * 16 * 16): thumbnails of the middle square of each image, and of the whole image scaled to a square."""
    pixels = (decode(path).pixels for path in tqdm(list(paths), "thumbnails", leave=False))
    pairs = [[crop(image, THUMBNAIL) for crop in (center_crop, squash)] for image in pixels]
    return to_tensor(np.stack(pairs)).flatten(2)


def unlike(paths: list[Path], hidden: Tensor) -> list[Path]:
    """The images that look like none of the `hidden` thumbnails."""
    shown = thumbnails(paths)
    distances = torch.cdist(shown.flatten(0, 1), hidden.flatten(0, 1), p=1).unflatten(0, shown.shape[:2])
    nearest = distances.amin((1, 2)) / shown.shape[2]
    unknown = [path for path, distance in zip(paths, nearest.tolist(), strict=True) if distance >= ALIKE / 127.5]
    print(f"{paths[0].parent}: {len(paths)} images, {len(paths) - len(unknown)} of them look like held-out ones")
    return unknown


def write_windows(args: Flags, paths: list[Path], folder: Path, cuts: list[Cut], size: int) -> list[dict[str, object]]:
    """Write the windows of all photographs; returns a row per history."""
    rows = []
    for path in tqdm(paths, f"{folder.parent.name}/{folder.name}", unit="image"):
        pixels = decode(path).pixels
        name = f"{path.parent.name}-{path.stem}" if folder.name == "64px" else path.stem
        rng = np.random.default_rng([args.seed, *hashlib.sha256(name.encode()).digest()[:8]])
        drawn = [(cut, cut.histories.draw(rng)) for cut in cuts for _ in range(cut.num_histories)]
        for number, (cut, history) in enumerate(drawn):
            squares = list(squares_of(history.apply(pixels), cut, size, rng))
            for place, square in enumerate(squares):
                write_bytes(folder / f"{name}-{number}-{place:02d}.png", png_bytes(square))
            rows.append(row_of(folder, path, number, history, len(squares)))
    return rows


def squares_of(pixels: np.ndarray, cut: Cut, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    if cut.whole:
        yield center_crop(pixels, size)
        return
    if cut.textured:
        yield from (window.cut(pixels) for window in textured_windows(pixels, size, cut.textured))
    if cut.random:
        yield from (window.cut(pixels) for window in random_windows(pixels, size, cut.random, rng))


def row_of(folder: Path, path: Path, number: int, history: History, num_windows: int) -> dict[str, object]:
    split, kind = folder.parts[-2:]
    name = f"{path.parent.name}/{path.name}"
    return {"split": split, "kind": kind, "file": name, "history": number, **asdict(history), "windows": num_windows}


if __name__ == "__main__":
    main(read_flags(Flags))
