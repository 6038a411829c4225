"""Work in threads beside a network: on many items, with results in order."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cache
from typing import TypeVar

from threadpoolctl import ThreadpoolController

S = TypeVar("S")
R = TypeVar("R")


def thread_pool(workers: int | None = None) -> ThreadPoolExecutor:
    """A pool of threads in which every operation of torch uses one core.

    Otherwise each thread would start a second set of threads for these operations. Two sets that wait for each other's
    cores make a training a quarter slower. The number of threads is at most `workers`; None is the default of Python.
    """
    return ThreadPoolExecutor(workers, initializer=use_cores, initargs=(1,))


def use_cores(number: int) -> AbstractContextManager[object]:
    """Limit the operations of torch in this thread to so many cores: from this call to the end of a `with` block."""
    import torch  # slow, and commands check their flags before

    torch.get_num_threads()  # the first call in a thread sets their number, and would undo the limit
    return _openmp().limit(limits=number)


@cache
def _openmp() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="openmp")


def in_threads(
    function: Callable[[S], R],
    items: Iterable[S],
    workers: int,
    ahead: int,
    stop: Callable[[], None] = lambda: None,
) -> Generator[R, None, None]:
    """`map(function, items)` in threads; results come in order, and up to `ahead` items are computed in advance.

    An error of `function` is raised in the place of its item's result. After an error, or when the iterator is closed,
    no further item is started; `stop` is called, and the items that were started are waited for.
    """
    pool = thread_pool(workers)
    begun: deque[Future[R]] = deque()
    try:
        for item in items:
            begun.append(pool.submit(function, item))
            if len(begun) > ahead:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        stop()
        pool.shutdown(wait=True, cancel_futures=True)
