"""Files of a data set that show the same picture: the same bytes, or similar perceptual hashes and thumbnails."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from rediffuse.images.facts import FileFacts
from rediffuse.images.find import FoundImage

Part = Literal["classes", "splits", "groups"]
"""A picture should be in one of each only."""

HASH_SIDE = 16
"""Side of the perceptual hash, in bits."""
_HASH_BITS = HASH_SIDE**2
_ALIKE_BITS = 40
"""Largest number of bits, of 256, in which the perceptual hashes of near-duplicates differ.

Measured on 80 photographs and generated images: JPEG 50, a reduction by half and a change of brightness change up to 16
bits, a crop of 2 % up to 54; two different pictures differ in at least 88.
"""
_ALIKE_LEVELS = 10.0
"""Largest mean difference of the thumbnails of near-duplicates, in levels of 0 to 255."""


@dataclass(frozen=True, kw_only=True)
class AuditImage:
    """A file with its class, split and group."""

    found: FoundImage
    label: int
    """0 real, 1 generated."""
    split: str = ""
    """`train`, `validation`, `test`; empty where the data have no splits."""
    group: str = ""
    """A generator, or a source of photographs: a collection of `labelled.LabelledImage`, or the folder below a given
    one; empty where there is none."""


@dataclass(frozen=True, kw_only=True)
class Examined:
    """A file that could be read, and what the audit needs of it."""

    image: AuditImage
    facts: FileFacts
    grid: float
    """See `images.facts.block_grid`."""
    sha256: str
    hash: np.ndarray
    """(256,) bool, perceptual."""
    thumbnail: np.ndarray
    """(192,) float32, levels of 0 to 255."""


@dataclass(frozen=True, kw_only=True)
class Duplicate:
    """Files that show the same picture."""

    files: tuple[str, ...]
    same_bytes: bool
    """False: they look alike, because they were re-encoded or resized, or show nearly the same scene."""
    across: tuple[Part, ...]
    """The files are in several of these."""


def find_duplicates(seen: Sequence[Examined]) -> tuple[Duplicate, ...]:
    """Sets of files that show the same picture, those across classes first, then across splits."""
    leader = list(range(len(seen)))  # union-find

    def find(place: int) -> int:
        while leader[place] != place:
            leader[place] = leader[leader[place]]
            place = leader[place]
        return place

    for first, second in _alike_pairs(seen):
        leader[find(second)] = find(first)
    members: dict[int, list[Examined]] = {}
    for place, one in enumerate(seen):
        members.setdefault(find(place), []).append(one)
    found = [_duplicate(files) for files in members.values() if len(files) > 1]
    order = [*get_args(Part), None]
    return tuple(sorted(found, key=lambda duplicate: order.index(next(iter(duplicate.across), None))))


def _duplicate(files: Sequence[Examined]) -> Duplicate:
    images = [one.image for one in files]
    values: dict[Part, set[object]] = {
        "classes": {image.label for image in images},
        "splits": {image.split for image in images},
        "groups": {(image.label, image.group) for image in images},
    }
    return Duplicate(
        files=tuple(image.found.name for image in images),
        same_bytes=len({one.sha256 for one in files}) == 1,
        across=tuple(part for part in get_args(Part) if len(values[part]) > 1),
    )


def _alike_pairs(seen: Sequence[Examined]) -> Iterator[tuple[int, int]]:
    """Pairs of indices of files with similar perceptual hashes and thumbnails; those of the same bytes are equal."""
    signs = np.array([one.hash for one in seen], dtype=np.float32) * 2 - 1  # (N, 256)
    thumbnails = np.array([one.thumbnail for one in seen])
    for start in range(0, len(seen), 512):
        # Two vectors of +1 and -1 differ in (256 - dot product) / 2 places
        differing = (_HASH_BITS - signs[start : start + 512] @ signs[start:].T) / 2  # (512, N - start)
        for row, column in np.argwhere(np.triu(differing <= _ALIKE_BITS, k=1)):
            first, second = start + int(row), start + int(column)
            if np.abs(thumbnails[first] - thumbnails[second]).mean() < _ALIKE_LEVELS:
                yield first, second
