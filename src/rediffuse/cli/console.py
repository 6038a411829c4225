"""Standard error: the library's log records as lines, and progress bars on a terminal."""

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from tqdm import tqdm

T = TypeVar("T")

_LIBRARY = logging.getLogger("rediffuse")


@contextlib.contextmanager
def log_to_stderr(*, quiet: bool = False, verbose: bool = False) -> Iterator[None]:
    """Write log records of the library to standard error in this context: errors, by default info, or also debug."""
    if quiet or not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    handler, before = _Handler(), _LIBRARY.level
    _LIBRARY.addHandler(handler)
    _LIBRARY.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)
    try:
        with warnings.catch_warnings():
            if quiet and not sys.warnoptions:
                warnings.simplefilter("ignore")
            yield
    finally:
        _LIBRARY.removeHandler(handler)
        _LIBRARY.setLevel(before)


def say_error(error: object) -> None:
    """Print one line on standard error, also with `--quiet`."""
    print(f"rediffuse: {error}", file=sys.stderr)


def bar(**options: Any) -> "tqdm[Any]":
    """A tqdm progress bar, drawn if standard error is a terminal and `--quiet` was not given."""
    from tqdm import tqdm

    is_wanted = sys.stderr.isatty() and _LIBRARY.isEnabledFor(logging.INFO)
    return tqdm(file=sys.stderr, disable=not is_wanted, **options)


def track(items: Iterable[T], total: int | None, unit: str = "image", *, initial: int = 0) -> Iterator[T]:
    """Yield the items, with a progress bar of `total` units, of which `initial` were done before."""
    with bar(total=total, initial=initial, unit=unit) as shown:
        for item in items:
            yield item
            shown.update()


@contextlib.contextmanager
def bars() -> "Iterator[Bars]":
    """Progress bars for functions with a `progress` argument (see `rediffuse.progress`), one after the other."""
    shown = Bars()
    try:
        yield shown
    finally:
        shown.close()


class Bars:
    """A `rediffuse.progress.Progress` that draws a bar for each label."""

    def __init__(self) -> None:
        self._label = ""
        self._bar: tqdm[Any] | None = None

    def __call__(self, label: str, done: int, total: int, note: str = "", /) -> None:
        if self._bar is None or label != self._label:
            self.close()
            self._label, self._bar = label, bar(desc=label, total=total, initial=done)
        if note:
            self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Close the bar, so that the next output is below it."""
        if self._bar is not None:
            self._bar.close()


class _Handler(logging.Handler):
    """Writes one line per record, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:
            line = f"rediffuse: {record.getMessage()}"
        elif record.levelno >= logging.WARNING:
            line = f"rediffuse: warning: {record.getMessage()}"
        elif record.levelno >= logging.INFO:
            line = record.getMessage()
        else:
            line = f"{record.name}: {record.getMessage()}"
        if "tqdm" in sys.modules:
            from tqdm import tqdm

            tqdm.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr)
