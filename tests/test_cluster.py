"""The record of what the workers of a cluster have begun; tests/cli/test_engine.py has the workers."""

from rediffuse.cluster import _Ledger


def test_only_an_item_that_is_alone_when_a_worker_ends_is_left_out() -> None:
    ledger = _Ledger()
    assert ledger.begin(0) == (0, frozenset(), False)
    assert ledger.begin(0) == (1, frozenset(), False)  # it ended with all items
    ledger.begin_item(0, 3)
    ledger.begin_item(0, 4)
    assert ledger.begin(0) == (2, frozenset({4}), False)
    ledger.begin_item(0, 7)
    assert ledger.begin(0) == (3, frozenset({4, 7}), False)
    assert ledger.begin(8) == (0, frozenset(), False)
    ledger.end(0)
    assert ledger.begin(0) == (0, frozenset(), False)  # its results were lost


def test_a_chunk_with_which_no_worker_begins_an_item_is_given_up() -> None:
    ledger = _Ledger()
    assert [ledger.begin(0)[2] for _ in range(7)] == [False] * 5 + [True] * 2
