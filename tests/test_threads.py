"""Work in threads: how far it runs ahead, how it ends, and where errors appear."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from rediffuse.threads import in_threads, thread_pool


def test_threads_run_ahead_but_no_further_than_they_may() -> None:
    begun, before = [], threading.active_count()

    def items() -> Iterator[int]:
        for item in range(100):
            begun.append(item)
            yield item

    def slow(item: int) -> int:
        time.sleep(0.002)
        return item

    mapped = in_threads(slow, items(), workers=2, ahead=4)
    assert [next(mapped) for _ in range(3)] == [0, 1, 2]
    assert len(begun) == 3 + 4
    mapped.close()
    assert threading.active_count() <= before


def test_nothing_is_begun_or_still_running_after_the_iterator_was_closed() -> None:
    begun, ended = [], []

    def work(item: int) -> None:
        begun.append(item)
        time.sleep(0.05 * item)
        ended.append(item)

    mapped = in_threads(work, range(5), workers=1, ahead=4)
    next(mapped)
    mapped.close()
    assert begun == ended
    assert len(begun) <= 2


def test_error_in_a_thread_is_raised_at_its_turn() -> None:
    def invert(item: int) -> float:
        return 1 / item

    mapped = in_threads(invert, [2, 1, 0, 4], workers=2, ahead=4)
    assert [next(mapped), next(mapped)] == [0.5, 1.0]
    with pytest.raises(ZeroDivisionError):
        next(mapped)


def test_operations_of_torch_in_a_pool_use_one_core_and_those_elsewhere_as_many_as_before() -> None:
    number = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with thread_pool(1) as pool, ThreadPoolExecutor(1) as other:
            assert pool.submit(torch.get_num_threads).result() == 1
            assert torch.get_num_threads() == 2
            assert other.submit(torch.get_num_threads).result() == 2
    finally:
        torch.set_num_threads(number)
