"""The manifest of results in a store, whose rows outlive the machine on which they were computed."""

import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from dire.test_manifest import DONE
from rediffuse.dire.manifest import read
from rediffuse.dire.remote import open_manifest
from rediffuse.errors import InputError
from rediffuse.stores import StoreFolder


@pytest.fixture
def folder() -> StoreFolder:
    return StoreFolder(f"memory:///{uuid.uuid4()}")


def test_rows_go_on_on_another_machine_after_a_kill(
    folder: StoreFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rediffuse.dire.remote._ROWS", 2)
    rows = [replace(DONE, name=f"{number}.jpg") for number in range(5)]
    killed = open_manifest(folder, tmp_path / "one")
    manifest = killed.__enter__()
    for row in rows:
        manifest.add(row)
    assert (folder / "manifest").names() == ["00000000.jsonl", "00000001.jsonl"]
    with open_manifest(folder, tmp_path / "other") as other:
        assert [other.get(row.name) for row in rows] == [*rows[:4], None]
        other.add(replace(rows[0], mean_error=0.5))
        other.add(rows[4])
    assert folder.names() == ["manifest.parquet"]
    (tmp_path / "manifest.parquet").write_bytes((folder / "manifest.parquet").read_bytes())
    assert read(tmp_path) == [replace(rows[0], mean_error=0.5), *rows[1:]]
    manifest.close()


def test_rows_of_several_killed_jobs_are_kept(
    folder: StoreFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rediffuse.dire.remote._ROWS", 1)
    rows = [replace(DONE, name=f"{number}.jpg") for number in range(5)]
    killed = []
    for part in (rows[:3], rows[3:]):
        killed.append(open_manifest(folder, tmp_path / str(len(killed))))
        manifest = killed[-1].__enter__()
        for row in part:
            manifest.add(row)
        manifest.close()
    with open_manifest(folder, tmp_path / "third") as third:
        assert [third.get(row.name) for row in rows] == rows


def test_a_row_is_copied_after_a_while_also_if_it_is_the_only_one(
    folder: StoreFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_manifest(folder, tmp_path) as manifest:
        manifest.add(DONE)
        assert (folder / "manifest").names() == []
        monkeypatch.setattr("rediffuse.dire.remote._SECONDS", 0.0)
        manifest.add(replace(DONE, name="b.jpg"))
        assert (folder / "manifest").names() == ["00000000.jsonl"]
        assert len((folder / "manifest" / "00000000.jsonl").read_bytes().splitlines()) == 2


def test_processes_on_several_machines_are_refused(folder: StoreFolder, tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match=r"^memory:.*: several processes need a folder on a disk that they share"),
        open_manifest(folder, tmp_path, "0-of-2"),
    ):
        pass
