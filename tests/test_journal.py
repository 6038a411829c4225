"""Journals: rows by key that are on the disk once they are added."""

import sqlite3
from pathlib import Path

import pytest

from rediffuse.errors import StorageError
from rediffuse.journal import Journal


def test_rows_return_sorted_by_key_and_later_ones_replace_earlier(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a.sqlite")
    for key, row in (("b", {"x": 1}), ("a", {"x": None, "y": "\ud7ff é"}), ("b", {"x": 0.1})):
        journal.add(key, row)
    assert (len(journal), journal.get("b"), journal.get("c")) == (2, {"x": 0.1}, None)
    journal.close()
    again = Journal(tmp_path / "a.sqlite")
    assert list(again) == [("a", {"x": None, "y": "\ud7ff é"}), ("b", {"x": 0.1})]
    again.close()
    again.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_database_of_something_else_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "a.sqlite") as other:
        other.execute("CREATE TABLE rows (name TEXT)")
    other.close()
    with pytest.raises(StorageError, match=r"a\.sqlite: could not be written: no such column: key$"):
        Journal(tmp_path / "a.sqlite")


def test_a_folder_that_is_missing_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"none/a\.sqlite: could not be written: unable to open database file$"):
        Journal(tmp_path / "none" / "a.sqlite")
