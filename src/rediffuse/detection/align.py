"""A copy of a data set in which the files of both classes went through the same kinds of processing.

The copy has one or more PNG files for each file, made in two steps:

1. A window of one common size is cut at a random place, without resampling. After that, sizes reveal nothing, and the
   same reduction has the same factor for all files.
2. The window is reduced, possibly blurred, and encoded, as drawn from one distribution (`images.history`).

The draws depend only on the seed and on the bytes of the file. The result is the pixels after these steps, as a PNG
without metadata. PNG and not the drawn format: the format of the copy is then constant, its pixels do not depend on the
decoder that reads it, and no later program can use format or quantisation tables as an input.
"""

import csv
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from rediffuse.errors import ConfigError, ImageError, InputError
from rediffuse.files import claim, write_bytes
from rediffuse.images.decode import decode_bytes
from rediffuse.images.encode import png_bytes
from rediffuse.images.find import FoundImage
from rediffuse.images.history import Histories, History
from rediffuse.images.rows import upright_size
from rediffuse.progress import Progress, counted, unobserved
from rediffuse.records import dump, parse, read_json
from rediffuse.threads import in_threads

INDEX = "index.csv"
"""Name of the table with the draws of every file."""
SETTINGS = "align.json"
"""Name of the file with the settings, which a second call must have too."""
SMALLEST = 16
"""Smallest side of a window, in pixels."""
SMALLEST_CHOSEN = 64
"""Smallest side of a window that is chosen by default, in pixels."""
REDUCTIONS = (0.8, 0.64, 0.5, 0.4, 0.3)
"""Sides after the reduction, relative to the window; equally likely."""


@dataclass(frozen=True, kw_only=True)
class AlignSettings:
    """What the pixels of an aligned file depend on, besides its source and the number of the draw."""

    seed: int
    size: int
    """Side of the window, in pixels."""
    histories: Histories


@dataclass(frozen=True, kw_only=True)
class AlignedFile:
    """A row of `INDEX`."""

    file: str
    """Path in the folder of the copy."""
    source: str
    """Path of the source in the source folder."""
    source_sha256: str
    draw: int
    """From 0 on."""
    top: int
    """First row of the window in the upright image."""
    left: int
    """Its first column."""
    size: int
    """Its side, in pixels."""
    short_side: int | None
    """After the reduction. This field and those below are those of `images.history.History`."""
    filter: str
    encoding: str
    quality: int
    subsampling: str
    blur: float


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """The result of `align`."""

    settings: AlignSettings
    files: tuple[AlignedFile, ...]
    """All files of the copy, in the order of their sources."""
    num_new: int
    """How many of them were written by this call."""
    failures: tuple[str, ...]
    """Why files were left out (unreadable, or smaller than the window), a line each."""


def histories_of(size: int, blurs: tuple[float, float] = (0.0, 0.0)) -> Histories:
    """The distribution of histories for windows of this side: all are reduced, and most are encoded.

    All are reduced, because this removes most traces of an earlier JPEG, which only one class may have.
    """
    return Histories(short_sides=tuple(max(8, round(share * size)) for share in REDUCTIONS), blurs=blurs)


def align(
    files: Sequence[FoundImage],
    out: Path,
    *,
    seed: int = 0,
    size: int | None = None,
    draws: int = 1,
    blurs: tuple[float, float] = (0.0, 0.0),
    workers: int = 2,
    progress: Progress = unobserved,
) -> Alignment:
    """Write the copy. Files that exist already are not written again.

    Args:
        files: from `images.find.find_images`.
        out: folder of the copy, with the same subfolders as the sources. The name of a file is `NAME-CONTENT-DRAW.png`,
            where CONTENT is the beginning of the SHA-256 of the source; `INDEX` lists all.
        seed: of all draws.
        size: side of the window in pixels, at least `SMALLEST`; smaller files are left out. None takes that of an
            existing copy, or else the short side of the smallest readable file.
        draws: number of histories per file, at least 1.
        blurs: smallest and largest standard deviation of a Gaussian blur after the reduction, in pixels.
        workers: number of threads.
        progress: called with the number of files that were read or written.

    Raises:
        ConfigError: an argument is outside its limits, or differs from that of the existing copy.
        InputError: no file can be read, or the smallest one is smaller than `SMALLEST_CHOSEN`.
        StorageError: the copy cannot be written, or another process is writing to `out`.
    """
    for name, number, least in (("size", size, SMALLEST), ("draws", draws, 1), ("workers", workers, 1)):
        if number is not None and number < least:
            raise ConfigError(f"{name}={number}: at least {least} is needed")
    outcomes = list(counted(in_threads(_survey, files, workers, 64), "sizes", len(files), progress))
    surveyed = [outcome for outcome in outcomes if isinstance(outcome, _Surveyed)]
    failures = [outcome for outcome in outcomes if isinstance(outcome, str)]
    with claim(out):
        settings = _settings(surveyed, out, seed, size, blurs)
        write_bytes(out / SETTINGS, (json.dumps(dump(settings), indent=2) + "\n").encode())

        def one(file: _Surveyed) -> tuple[list[AlignedFile], int] | str:
            return _align(file, out, settings, draws)

        aligned: list[AlignedFile] = []
        num_new = 0
        for outcome in counted(in_threads(one, surveyed, workers, 16), "align", len(surveyed), progress):
            if isinstance(outcome, str):
                failures.append(outcome)
            else:
                aligned += outcome[0]
                num_new += outcome[1]
        write_bytes(out / INDEX, _table(aligned).encode())
    return Alignment(settings=settings, files=tuple(aligned), num_new=num_new, failures=tuple(failures))


@dataclass(frozen=True)
class _Surveyed:
    found: FoundImage
    sha256: str
    width: int
    height: int

    @property
    def short_side(self) -> int:
        return min(self.width, self.height)


def _survey(found: FoundImage) -> _Surveyed | str:
    try:
        content = found.read()
        width, height = upright_size(content, found.source)
    except ImageError as error:
        return str(error)
    return _Surveyed(found, hashlib.sha256(content).hexdigest(), width, height)


def _settings(
    surveyed: Sequence[_Surveyed], out: Path, seed: int, size: int | None, blurs: tuple[float, float]
) -> AlignSettings:
    """The settings of the call, which have to be equal to those of an existing copy."""
    if not surveyed:
        raise InputError("none of the files can be read as an image")
    existing = _existing(out / SETTINGS)
    if size is None:
        size = existing.size if existing is not None else _common_size(surveyed)
    given = AlignSettings(seed=seed, size=size, histories=histories_of(size, blurs))
    if existing is not None and existing != given:
        name = next(name for name in vars(given) if getattr(given, name) != getattr(existing, name))
        raise ConfigError(
            f"{name}={getattr(given, name)}: the copy in {out} was made with {name}={getattr(existing, name)}; "
            "give the same value, or another folder"
        )
    return given


def _existing(path: Path) -> AlignSettings | None:
    if not path.exists():
        return None
    return parse(AlignSettings, read_json(path), str(path))


def _common_size(surveyed: Sequence[_Surveyed]) -> int:
    smallest = min(surveyed, key=lambda file: file.short_side)
    if smallest.short_side < SMALLEST_CHOSEN:
        raise InputError(
            f"{smallest.found.source}: {smallest.width}x{smallest.height} pixels, too small to be the size of "
            f"all windows; give --size ({SMALLEST} or more), and smaller files are left out"
        )
    return smallest.short_side


def _align(file: _Surveyed, out: Path, settings: AlignSettings, draws: int) -> tuple[list[AlignedFile], int] | str:
    """The rows of one file and the number of new ones, or why there are none."""
    found, size = file.found, settings.size
    if file.short_side < size:
        return f"{found.source}: {file.width}x{file.height} pixels, smaller than the window of {size} pixels: left out"
    rows, missing = [], []
    for draw in range(draws):
        row, history = _drawn(file, settings, draw)
        rows.append(row)
        if not (out / row.file).exists():
            missing.append((row, history))
    if not missing:
        return rows, 0
    try:
        image = decode_bytes(found.read(), found.source, found.limits)
    except ImageError as error:
        return str(error)
    if image.sha256 != file.sha256:
        return f"{found.source}: changed during the run: try again"
    for row, history in missing:
        window = image.pixels[row.top : row.top + size, row.left : row.left + size]
        write_bytes(out / row.file, png_bytes(history.apply(window)))
    return rows, len(missing)


def _drawn(file: _Surveyed, settings: AlignSettings, draw: int) -> tuple[AlignedFile, History]:
    rng = np.random.default_rng([settings.seed, draw, *bytes.fromhex(file.sha256)])
    top, left = (int(rng.integers(side - settings.size, endpoint=True)) for side in (file.height, file.width))
    history = settings.histories.draw(rng)
    source = PurePosixPath(file.found.name)
    row = AlignedFile(
        file=str(source.with_name(f"{source.stem}-{file.sha256[:8]}-{draw}.png")),
        source=file.found.name,
        source_sha256=file.sha256,
        draw=draw,
        top=top,
        left=left,
        size=settings.size,
        **asdict(history),
    )
    return row, history


def _table(rows: Sequence[AlignedFile]) -> str:
    table = io.StringIO()
    writer = csv.DictWriter(table, [*AlignedFile.__dataclass_fields__], lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(asdict, rows))
    return table.getvalue()
