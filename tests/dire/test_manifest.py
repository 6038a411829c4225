"""The manifest: one row per file, which is not lost when the process is killed."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
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
    with Manifest(tmp_path / "new" / "out") as manifest:
        manifest.add(FAILED)
        manifest.add(DONE)
        assert list(manifest) == [FAILED, DONE]
        assert len(manifest) == 2
    assert read(tmp_path / "new" / "out") == [DONE, FAILED]
    table = pq.read_table(tmp_path / "new" / "out" / "manifest.parquet")
    assert table.column("name").to_pylist() == ["a.jpg", "b.png"]


def test_closing_leaves_the_table_alone(tmp_path: Path) -> None:
    with Manifest(tmp_path) as manifest:
        manifest.add(DONE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.parquet"]


def test_rows_of_many_threads_are_all_in_the_journal(tmp_path: Path) -> None:
    rows = [replace(DONE, name=f"{index:03}.jpg") for index in range(400)]
    with Manifest(tmp_path) as manifest:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(manifest.add, rows))
        assert sorted(read(tmp_path), key=lambda row: row.name) == rows


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


def killed_while_writing(folder: Path, *rows: Row) -> None:
    """Add rows in a process that is killed while it writes the next one."""
    script = (
        "import os, signal, sys; from pathlib import Path; from rediffuse.dire.manifest import Manifest, Row\n"
        f"manifest = Manifest(Path(sys.argv[1])); [manifest.add(row) for row in {rows!r}]\n"
        'os.write(manifest._appending.fileno(), b\'{"name": "tor\')\n'
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", script, folder], check=False)
    assert killed.returncode == -signal.SIGKILL


def test_rows_outlive_killed_processes_that_were_writing_one(tmp_path: Path) -> None:
    killed_while_writing(tmp_path, DONE, FAILED)
    assert read(tmp_path) == [DONE, FAILED]
    third = replace(DONE, name="c.jpg")
    killed_while_writing(tmp_path, third)  # its first line follows the incomplete one
    assert read(tmp_path) == [DONE, FAILED, third]
    with Manifest(tmp_path) as manifest:
        manifest.add(replace(DONE, name="d.jpg"))
    assert [row.name for row in read(tmp_path)] == ["a.jpg", "b.png", "c.jpg", "d.jpg"]


def test_row_that_was_torn_before_its_end_of_line_is_no_row(tmp_path: Path) -> None:
    with Manifest(tmp_path) as manifest:
        manifest.add(DONE)
        journal = (tmp_path / "manifest.journal.jsonl").read_bytes()
    (tmp_path / "manifest.parquet").unlink()
    (tmp_path / "manifest.journal.jsonl").write_bytes(journal + journal.replace(b"a.jpg", b"b.jpg").rstrip(b"\n"))
    assert read(tmp_path) == [DONE]


def test_second_process_is_told_to_wait(tmp_path: Path) -> None:
    with Manifest(tmp_path), pytest.raises(StorageError, match="another process is writing"):
        Manifest(tmp_path)
    with Manifest(tmp_path):
        pass


def test_folder_that_is_a_file_gives_one_line(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match=r"out: is a file; a folder is needed$"):
        Manifest(tmp_path / "out")


def test_file_that_is_no_manifest_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "manifest.parquet").write_text("no table")
    with pytest.raises(InputError, match=r"manifest\.parquet: is not a manifest \(.*Parquet.*\); remove it"):
        Manifest(tmp_path)


@pytest.mark.parametrize("absent", [["windows", "lpips"], ["lpips"]])
def test_table_written_before_there_were_windows_or_lpips_is_read(absent: list[str], tmp_path: Path) -> None:
    with Manifest(tmp_path) as manifest:
        manifest.add(DONE)
    table = pq.read_table(tmp_path / "manifest.parquet")
    pq.write_table(table.drop_columns(absent), tmp_path / "manifest.parquet")
    with Manifest(tmp_path) as manifest:
        manifest.add(replace(DONE, name="b.jpg", windows="0,8 32,64"))
    assert read(tmp_path) == [DONE, replace(DONE, name="b.jpg", windows="0,8 32,64")]


def test_table_with_other_columns_is_no_manifest_and_stays(tmp_path: Path) -> None:
    pq.write_table(pa.table({"name": ["a"], "size": [1]}), tmp_path / "manifest.parquet")
    with pytest.raises(
        InputError, match=r"manifest\.parquet: is not a manifest \(its columns are name, size\); remove"
    ):
        Manifest(tmp_path)
    assert pq.read_schema(tmp_path / "manifest.parquet").names == ["name", "size"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_gives_one_line_and_keeps_what_was_done(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    manifest.add(DONE)
    with Path("/dev/full").open("w") as full:
        os.dup2(full.fileno(), manifest._appending.fileno())
    for act in (lambda: manifest.add(FAILED), manifest.close):
        with pytest.raises(StorageError, match=r"journal\.jsonl: could not be written: No space left on device$"):
            act()
    assert read(tmp_path) == [DONE]


@pytest.mark.parametrize(
    "damage", [b"no row\n", b"\xff\xfe\n", b"{}\n", b"[1]\n", b"\0" * 99 + b"\n", b'{"name": 5}\n']
)
def test_damaged_lines_of_the_journal_count_as_not_done_and_are_counted(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    killed_while_writing(tmp_path, DONE)
    journal = tmp_path / "manifest.journal.jsonl"
    line = journal.read_bytes().partition(b"\n")[0] + b"\n"
    journal.write_bytes(line + damage + line.replace(b"a.jpg", b"c.jpg"))
    with Manifest(tmp_path) as manifest:
        assert [row.name for row in manifest] == ["a.jpg", "c.jpg"]
    assert "manifest.journal.jsonl: 1 of 3 lines are damaged; their files are processed again" in caplog.text
