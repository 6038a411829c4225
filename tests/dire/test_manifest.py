"""The manifest: one row per file, which is not lost when the process is killed."""

import json
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
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
        assert [manifest.get(name) for name in ("a.jpg", "b.png", "c.png")] == [DONE, FAILED, None]
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


def killed_while_writing(folder: Path, *rows: Row, part: str = "") -> None:
    """Add rows in a process that is killed while it writes the next one."""
    script = (
        "import os, signal, sys; from pathlib import Path; from rediffuse.dire.manifest import Manifest, Row\n"
        f"manifest = Manifest(Path(sys.argv[1]), {part!r}); [manifest.add(row) for row in {rows!r}]\n"
        f"manifest._journal._rows.execute('BEGIN'); manifest.add({replace(DONE, name='torn')!r})\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", script, folder], check=False)
    assert killed.returncode == -signal.SIGKILL


def test_rows_outlive_killed_processes_that_were_writing_one(tmp_path: Path) -> None:
    killed_while_writing(tmp_path, DONE, FAILED)
    assert read(tmp_path) == [DONE, FAILED]
    third = replace(DONE, name="c.jpg")
    killed_while_writing(tmp_path, third)
    assert read(tmp_path) == [DONE, FAILED, third]
    with Manifest(tmp_path) as manifest:
        manifest.add(replace(DONE, name="d.jpg"))
    assert [row.name for row in read(tmp_path)] == ["a.jpg", "b.png", "c.jpg", "d.jpg"]
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.parquet"]


def test_rows_of_many_groups_are_found_and_merged_with_later_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rediffuse.dire.manifest._GROUP", 4)
    rows = [replace(DONE, name=f"{index:02}.jpg") for index in range(30)]
    for step in (3, 2, 1):  # each job adds names between those that are there
        with Manifest(tmp_path) as manifest:
            for row in rows[::step]:
                manifest.add(row)
    assert pq.ParquetFile(tmp_path / "manifest.parquet").num_row_groups == 8
    with Manifest(tmp_path) as manifest:
        assert [manifest.get(row.name) for row in reversed(rows)] == rows[::-1]
        assert [manifest.get(name) for name in ("", "00", "07.jpg.png", "99.jpg")] == [None] * 4
        manifest.add(replace(FAILED, name="07.jpg"))
        assert manifest.get("07.jpg") == replace(FAILED, name="07.jpg")
    assert read(tmp_path)[7] == replace(FAILED, name="07.jpg")
    assert len(read(tmp_path)) == 30


def test_processes_with_parts_share_a_folder_and_the_last_merges_their_rows(tmp_path: Path) -> None:
    other = replace(DONE, name="c.jpg")
    with Manifest(tmp_path, "0-of-2") as zero:
        with Manifest(tmp_path, "1-of-2") as one:
            zero.add(DONE)
            one.add(other)
            assert [zero.get("a.jpg"), zero.get("c.jpg")] == [DONE, None]  # each knows its own rows
        with Manifest(tmp_path, "1-of-2") as one:
            assert [one.get("a.jpg"), one.get("c.jpg")] == [None, other]
        assert not (tmp_path / "manifest.parquet").exists()
        with pytest.raises(StorageError, match="another process is writing"):
            Manifest(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.parquet"]
    assert read(tmp_path) == [DONE, other]


@pytest.mark.parametrize("part", ["", "2-of-3"])
def test_rows_of_a_killed_part_are_known_to_a_job_with_other_parts(part: str, tmp_path: Path) -> None:
    killed_while_writing(tmp_path, DONE, part="0-of-2")
    assert (tmp_path / "manifest.journal.0-of-2.sqlite").exists()
    with Manifest(tmp_path, part) as manifest:
        assert manifest.get("a.jpg") == DONE
        assert manifest.get("torn") is None


def test_the_record_of_a_folder_is_prepared_while_no_other_process_has_it(tmp_path: Path) -> None:
    told: list[bool] = []
    with Manifest(tmp_path, "0-of-2", told.append), Manifest(tmp_path, "1-of-2", told.append):
        assert told == [True, False]


def test_the_journal_of_an_earlier_version_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    later = replace(DONE, mean_error=0.5)
    lines = [json.dumps(asdict(row)) for row in (FAILED, DONE, later)]
    (tmp_path / "manifest.journal.jsonl").write_text("\n".join([*lines, '{"name": "torn']))
    assert read(tmp_path) == [later, FAILED]
    with Manifest(tmp_path) as manifest:
        assert manifest.get("a.jpg") == later
    assert read(tmp_path) == [later, FAILED]
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.parquet"]
    assert not caplog.records


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


@pytest.mark.parametrize("num_absent", [5, 4, 3])
def test_table_written_before_there_were_windows_lpips_or_shards_is_read(num_absent: int, tmp_path: Path) -> None:
    with Manifest(tmp_path) as manifest:
        manifest.add(DONE)
    table = pq.read_table(tmp_path / "manifest.parquet")
    pq.write_table(table.drop_columns(table.column_names[-num_absent:]), tmp_path / "manifest.parquet")
    with Manifest(tmp_path) as manifest:
        manifest.add(replace(DONE, name="b.jpg", windows="0,8 32,64"))
    assert read(tmp_path) == [DONE, replace(DONE, name="b.jpg", windows="0,8 32,64")]


@pytest.mark.parametrize("names", [["name", "size"], ["name", "path"], [f"column{number}" for number in range(20)]])
def test_table_with_other_columns_is_no_manifest_and_stays(names: list[str], tmp_path: Path) -> None:
    pq.write_table(pa.table({name: ["a"] for name in names}), tmp_path / "manifest.parquet")
    message = rf"manifest\.parquet: is not a manifest \(its columns are {', '.join(names)}\); remove"
    with pytest.raises(InputError, match=message):
        Manifest(tmp_path)
    assert pq.read_schema(tmp_path / "manifest.parquet").names == names


def test_the_journal_of_a_whole_job_has_this_name(tmp_path: Path) -> None:
    with Manifest(tmp_path):
        assert [path.name for path in tmp_path.glob("*.sqlite")] == ["manifest.journal.sqlite"]


def test_full_disk_gives_one_line_and_keeps_what_was_done(tmp_path: Path) -> None:
    script = (
        "import resource, sys; from pathlib import Path; from rediffuse.dire.manifest import Manifest, Row\n"
        f"manifest, row = Manifest(Path(sys.argv[1])), {DONE!r}\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "[manifest.add(Row(**{**vars(row), 'name': f'{number:05}'})) for number in range(10_000)]"
    )
    ended = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=False)
    assert re.search(r"StorageError: .*manifest\.journal\.sqlite: could not be written: ", ended.stderr)
    assert len(names := [row.name for row in read(tmp_path)]) >= 5
    assert names == [f"{number:05}" for number in range(len(names))]


def test_a_damaged_journal_is_begun_again_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "manifest.journal.sqlite").write_bytes(b"no database" * 1000)
    with Manifest(tmp_path) as manifest:
        manifest.add(DONE)
    assert read(tmp_path) == [DONE]
    assert "manifest.journal.sqlite: is damaged (file is not a database); what it recorded is processed" in caplog.text


@pytest.mark.parametrize(
    "damage",
    [b"no row\n", b"\xff\xfe\n", b"{}\n", b"[1]\n", b"\0" * 99 + b"\n", b'{"name": 5}\n', b"[" * 10**5 + b"\n"],
    ids=["text", "bytes", "empty", "list", "zeros", "type", "nested"],
)
def test_damaged_lines_of_an_earlier_journal_count_as_not_done_and_are_counted(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    line = json.dumps(asdict(DONE)).encode() + b"\n"
    (tmp_path / "manifest.journal.jsonl").write_bytes(line + damage + line.replace(b"a.jpg", b"c.jpg"))
    assert [row.name for row in read(tmp_path)] == ["a.jpg", "c.jpg"]
    assert "manifest.journal.jsonl: 1 of 3 lines are damaged; their files are processed again" in caplog.text
