"""Does a decision survive the mild changes that files go through? If one of them reverses it, it becomes `unsure`."""

from collections.abc import Sequence
from dataclasses import replace

from rediffuse.detection.verdict import JudgedCopy, Verdict
from rediffuse.images.changes import Change, ChangedImage
from rediffuse.images.find import FoundImage, MemoryImage

MILD = (Change("jpeg", 75), Change("reduce", 0.75), Change("webp", 80))
"""The changes after which an image is judged again: websites and messengers do as much to most images."""


def copies_of(found: FoundImage | MemoryImage) -> list[ChangedImage]:
    """A copy of the image for each of the `MILD` changes."""
    return [ChangedImage(found, change) for change in MILD]


def with_copies(own: Verdict, copies: Sequence[JudgedCopy]) -> Verdict:
    """The verdict on an image, given the results for its copies.

    It is `unsure` if a copy got the opposite decision, `real` for `generated` or the reverse. An `unsure` copy
    contradicts no decision. The probability is that of the image itself.
    """
    opposite = [copy for copy in copies if {own.decision, copy.decision} == {"real", "generated"}]
    own = replace(own, copies=tuple(copies))
    if not opposite:
        return own
    changes = " and after ".join(str(copy.change) for copy in opposite)
    return replace(own, decision="unsure", reason=f"the decision changes to {opposite[0].decision} after {changes}")
