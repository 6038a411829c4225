"""The manifest: one row per file, that a killed process does not lose."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rediffuse.dire.manifest import Manifest, Row, read
from rediffuse.errors import InputError, StorageError

DONE = Row(
    name="a.jpg",
    path="in/a.jpg",
    sha256="0" * 64,
    width=20,
    height=10,
    codec="JPEG",
    label=None,
    settings="0" * 16,
    mean_error=0.25,
    status="done",
    reason=None,
)
FAILED = Row(
    name="b.png",
    path="in/b.png",
    sha256=None,
    width=None,
    height=None,
    codec=None,
    label=None,
    settings="0" * 16,
    mean_error=None,
    status="failed",
    reason="in/b.png: no image",
)


def test_rows_return_from_parquet_sorted_by_name(tmp_path: Path) -> None:
    with Manifest(tmp_path) as manifest:
        manifest.add(FAILED)
        manifest.add(DONE)
    assert read(tmp_path) == [DONE, FAILED]
    assert pq.read_table(tmp_path / "manifest.parquet").column("name").to_pylist() == ["a.jpg", "b.png"]


def test_later_row_of_a_name_replaces_the_earlier(tmp_path: Path) -> None:
    with Manifest(tmp_path) as manifest:
        manifest.add(DONE)
    with Manifest(tmp_path) as manifest:
        manifest.add(replace(DONE, mean_error=0.5))
        assert manifest.get("a.jpg") == replace(DONE, mean_error=0.5)
    assert read(tmp_path) == [replace(DONE, mean_error=0.5)]


def test_manifest_without_new_rows_is_not_rewritten(tmp_path: Path) -> None:
    with Manifest(tmp_path) as manifest:
        manifest.add(DONE)
    before = (tmp_path / "manifest.parquet").stat()
    with Manifest(tmp_path):
        pass
    assert (tmp_path / "manifest.parquet").stat().st_ino == before.st_ino


def test_rows_outlive_a_killed_process_that_was_writing_one(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from rediffuse.dire.manifest import Manifest, Row\n"
        f"manifest = Manifest(Path(sys.argv[1])); manifest.add({DONE!r})\n"
        'manifest._appending.write(\'{"name": "tor\'); manifest._appending.flush()\n'
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", script, tmp_path], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert read(tmp_path) == [DONE]
    with Manifest(tmp_path) as manifest:
        manifest.add(FAILED)
    assert read(tmp_path) == [DONE, FAILED]


def test_second_process_is_told_to_wait(tmp_path: Path) -> None:
    with Manifest(tmp_path), pytest.raises(StorageError, match="another run is writing"):
        Manifest(tmp_path)
    with Manifest(tmp_path):
        pass


def test_file_that_is_no_manifest_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "manifest.parquet").write_text("no table")
    with pytest.raises(InputError, match=r"manifest\.parquet: is no manifest"):
        Manifest(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_gives_one_line_and_keeps_what_was_done(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    manifest.add(DONE)
    with Path("/dev/full").open("w") as full:
        os.dup2(full.fileno(), manifest._appending.fileno())
    for act in (lambda: manifest.add(FAILED), manifest.close):
        with pytest.raises(StorageError, match=r"manifest\.journal\.jsonl: .*No space left on device"):
            act()
    assert read(tmp_path) == [DONE]


def test_damaged_journal_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "manifest.journal.jsonl").write_text("no row\n")
    with pytest.raises(InputError, match=r"manifest\.journal\.jsonl: line 1 is no row"):
        Manifest(tmp_path)
