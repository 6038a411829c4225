"""Work on many items in threads, whose results come in order."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
R = TypeVar("R")


def in_threads(function: Callable[[S], R], items: Iterable[S], workers: int, ahead: int) -> Generator[R, None, None]:
    """`map(function, items)` in threads; results come in order, and up to `ahead` items are computed in advance.

    An error of `function` is raised in the place of its item's result. After an error, or when the iterator is closed,
    no further item is started.
    """
    pool = ThreadPoolExecutor(workers)
    begun: deque[Future[R]] = deque()
    try:
        for item in items:
            begun.append(pool.submit(function, item))
            if len(begun) > ahead:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
