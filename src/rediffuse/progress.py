"""How long work tells how far it is, to a caller who asked for it. The library draws nothing itself."""

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """Called whenever more of the work is done."""

    def __call__(self, label: str, done: int, total: int, note: str = "", /) -> object:
        """Take note of how far the work is.

        Args:
            label: what is being worked on; another label begins another piece of work.
            done: how much of it is done.
            total: how much there is.
            note: a figure worth showing beside it, such as `loss 0.061`.
        """


def unobserved(label: str, done: int, total: int, note: str = "", /) -> None:
    """The `Progress` of a caller who did not ask."""


def counted(items: Iterable[T], label: str, total: int, progress: Progress) -> Iterator[T]:
    """The items, each of them reported once it has been dealt with."""
    progress(label, 0, total)
    for done, item in enumerate(items, start=1):
        yield item
        progress(label, done, total)
