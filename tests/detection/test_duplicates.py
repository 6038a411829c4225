"""Which files show the same picture: by their bytes, or by perceptual hash and thumbnail together."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from labelled_images import picture
from rediffuse.detection.duplicates import AuditImage, Duplicate, Examined, Part, find_duplicates
from rediffuse.images.encode import png_bytes
from rediffuse.images.facts import facts_of
from rediffuse.images.find import FoundImage

FACTS = facts_of(png_bytes(np.asarray(picture(0))), "any.png")


def examined(number: int, label: int = 0, split: str = "", group: str = "") -> Examined:
    """A file whose picture is unlike that of every other number: about half of the bits of their hashes differ."""
    random = np.random.default_rng(number)
    found = FoundImage(Path(f"{number}.png"), f"{number}.png")
    return Examined(
        image=AuditImage(found=found, label=label, split=split, group=group),
        facts=FACTS,
        grid=0.0,
        sha256=f"{number:064}",
        hash=random.random(256) < 0.5,
        thumbnail=random.uniform(0, 255, 192).astype(np.float32),
    )


def alike(file: Examined, other: Examined, bits: Sequence[int] = (), brightness: float = 0.0) -> Examined:
    """`other` with the picture of `file`, of whose hash these bits differ, and whose thumbnail is brighter."""
    hashed = file.hash.copy()
    hashed[list(bits)] ^= True
    return replace(other, hash=hashed, thumbnail=file.thumbnail + np.float32(brightness))


def sets(files: Sequence[Examined]) -> list[tuple[str, ...]]:
    return [duplicate.files for duplicate in find_duplicates(files)]


def test_pictures_that_are_unlike_each_other_are_no_duplicates() -> None:
    assert find_duplicates([]) == ()
    assert find_duplicates([examined(number) for number in range(50)]) == ()


def test_hash_and_thumbnail_both_have_to_be_similar() -> None:
    one, two, other = examined(1), examined(2), examined(3)
    assert sets([one, alike(one, two, range(40))]) == [("1.png", "2.png")]
    assert sets([one, alike(one, two, range(41))]) == []
    # Whole levels are exact in float32.
    one, other = (replace(file, thumbnail=np.full(192, 100, np.float32)) for file in (one, other))
    assert sets([one, other, alike(one, two, brightness=-9)]) == [("1.png", "2.png")]
    assert sets([one, other, alike(one, two, brightness=10)]) == []


def test_files_of_the_same_bytes_are_told_from_those_that_look_alike() -> None:
    first, second, third = (examined(number) for number in range(3))
    same = replace(alike(first, third), sha256=first.sha256)
    assert find_duplicates([first, second, same]) == (Duplicate(files=("0.png", "2.png"), same_bytes=True, across=()),)
    assert find_duplicates([first, alike(first, second), same]) == (
        Duplicate(files=("0.png", "1.png", "2.png"), same_bytes=False, across=()),
    )


def test_pictures_that_only_a_third_one_connects_are_one_set() -> None:
    ends = examined(0), alike(examined(0), examined(1), range(80))
    assert sets(ends) == []
    for middle in ([2, 0, 1], [0, 2, 1], [0, 1, 2]):
        files = {0: ends[0], 1: ends[1], 2: alike(ends[0], examined(2), range(40))}
        assert sets([examined(9), *(files[number] for number in middle)]) == [tuple(f"{k}.png" for k in middle)]
    # The end of one chain is the beginning of another one, and two other files are a set of their own.
    chain = [alike(examined(0), examined(number), range(30 * number)) for number in range(8)]
    shuffled = [chain[number] for number in (7, 0, 5, 2, 4, 6, 1, 3)]
    pair = [examined(20), alike(examined(20), examined(21))]
    assert [len(files) for files in sets([pair[0], *shuffled, pair[1]])] == [2, 8]


def test_pairs_are_found_among_more_files_than_are_compared_at_once() -> None:
    files = [examined(number) for number in range(1100)]
    pairs = [(3, 4), (5, 900), (511, 700), (512, 800), (600, 1023), (1024, 1099)]
    for first, second in pairs:
        files[second] = alike(files[first], files[second], range(20))
    assert sets(files) == [(f"{first}.png", f"{second}.png") for first, second in pairs]


@pytest.mark.parametrize(
    ("other", "across"),
    [
        ({}, ()),
        ({"group": "phone"}, ("groups",)),
        ({"split": "test"}, ("splits",)),
        ({"label": 1}, ("classes", "groups")),  # groups of two classes are never one group
        ({"label": 1, "split": "test", "group": "phone"}, ("classes", "splits", "groups")),
    ],
)
def test_it_is_said_what_a_picture_should_be_in_one_of_and_is_not(other: dict, across: tuple[Part, ...]) -> None:
    one = {"label": 0, "split": "train", "group": "camera"}
    [found] = find_duplicates([examined(1, **one), alike(examined(1), examined(2, **one | other))])
    assert found.across == across


def test_pictures_in_both_classes_come_first_and_those_in_one_of_each_last() -> None:
    kinds = [{}, {"group": "phone"}, {"split": "test"}, {"label": 1}]
    files = [(examined(n), alike(examined(n), examined(10 + n, **kind))) for n, kind in enumerate(kinds)]
    assert sets([file for pair in files for file in pair]) == [(f"{n}.png", f"{10 + n}.png") for n in (3, 2, 1, 0)]
