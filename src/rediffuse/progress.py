"""Callbacks that report the progress of long work. The library itself prints nothing and draws no progress bar."""

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """A callback that is called whenever more of the work is done."""

    def __call__(self, label: str, done: int, total: int, note: str = "", /) -> object:
        """Report progress.

        Args:
            label: name of the current part of the work; another label begins another part.
            done: number of units of this part that are done.
            total: number of units in this part.
            note: a figure to show with it, such as `loss 0.061`.
        """


def unobserved(label: str, done: int, total: int, note: str = "", /) -> None:
    """A `Progress` that does nothing: the default."""


def counted(items: Iterable[T], label: str, total: int, progress: Progress) -> Iterator[T]:
    """Yield the items, and report each one after the caller has processed it."""
    progress(label, 0, total)
    for done, item in enumerate(items, start=1):
        yield item
        progress(label, done, total)
