"""Files and folders are written completely or not at all."""

import errno
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from rediffuse.errors import InputError, StorageError
from rediffuse.files import (
    atomic_folder,
    atomic_write,
    claim,
    remove,
    remove_partial,
    result_path,
    sha256_of,
    write_bytes,
)
from rediffuse.stores import StoreFolder


def test_failed_block_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    def fail_half_way() -> None:
        with atomic_write(tmp_path / "a.txt") as partial:
            partial.write_bytes(b"half")
            raise ZeroDivisionError

    write_bytes(tmp_path / "a.txt", b"before")
    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"before"]


def test_bytes_are_written_whole_also_to_a_new_folder_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.txt"
    write_bytes(path, b"first")
    with pytest.raises(TypeError):
        write_bytes(path, "no bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"first"
    write_bytes(path, b"second")
    assert path.read_bytes() == b"second"
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(StorageError, match=r"^.*b\.txt: could not be written: Not a directory$"):
        write_bytes(path / "b.txt", b"")


def test_full_disk_names_the_file_and_the_reason(tmp_path: Path) -> None:
    def write_to_a_full_disk() -> None:
        with atomic_write(tmp_path / "a.txt") as partial:
            partial.unlink()
            partial.symlink_to("/dev/full")
            partial.write_bytes(b"x")

    with pytest.raises(StorageError, match=r"a\.txt: could not be written: No space left on device"):
        write_to_a_full_disk()
    assert not list(tmp_path.iterdir())


def test_a_result_of_a_name_of_any_length_has_a_path_of_its_own(tmp_path: Path) -> None:
    names = ["a/b.png", "x" * 255, "x" * 254 + "y", "ü" * 127 + "/" + "ü" * 127, "a/" + "b" * 238 + ".jpg"]
    paths = [result_path(tmp_path, name, ".error.jpg") for name in names]
    assert paths[0] == tmp_path / "a" / "b.png.error.jpg"
    assert len(set(paths)) == len(names)
    for path in paths:
        write_bytes(path, b"")
        assert path.exists()


def test_name_too_long_for_the_file_system_gives_one_line(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="File name too long"):
        write_bytes(tmp_path / ("a" * 250 + ".txt"), b"")


def test_threads_write_with_the_rights_that_the_mask_leaves(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: write_bytes(tmp_path / f"{name}.txt", b""), range(64)))
        assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}
    finally:
        assert os.umask(mask) == 0o027


def test_file_that_the_block_puts_in_the_place_gets_these_rights_too(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "new" / "folder" / "a.txt") as partial:
            partial.unlink()
            partial.touch(mode=0o600)
    finally:
        os.umask(mask)
    assert (tmp_path / "new" / "folder" / "a.txt").stat().st_mode & 0o777 == 0o640


def test_what_a_process_was_writing_when_it_was_killed_is_found(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from rediffuse.files import atomic_write\n"
        "with atomic_write(Path(sys.argv[1])) as partial: os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", script, tmp_path / "photo.jpg.png"], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [path.name.startswith(".photo.jpg.png.") for path in tmp_path.iterdir()] == [True]
    remove_partial(tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_goes_and_hidden_files_stay(tmp_path: Path) -> None:
    kept = [".hidden.png", ".photo.jpg.png", "photo.0c3f81ab.png"]
    for name in (*kept, ".photo.jpg.png.0c3f81ab.png"):
        (tmp_path / name).write_bytes(b"")
    remove_partial(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_folders_below_are_searched_too(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / ".b.png.0c3f81ab.png").write_bytes(b"")
    remove_partial(tmp_path)
    assert not list((tmp_path / "sub").iterdir())


HOLDER = """
import sys; from pathlib import Path; from rediffuse.files import atomic_write, claim
with claim(Path(sys.argv[1]), shared=sys.argv[2] == "shared"):
    with atomic_write(Path(sys.argv[1]) / "a.txt"):
        print("mine", flush=True); sys.stdin.read()
"""


@contextmanager
def holder(folder: Path, how: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has claimed the folder and is writing a file in it, until its standard input is closed."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, folder, how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "mine\n"
        yield process
        process.communicate()


@pytest.mark.parametrize(("others", "own"), [("alone", "alone"), ("alone", "shared"), ("shared", "alone")])
def test_a_folder_that_another_process_has_is_refused(
    tmp_path: Path, others: str, own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A process that would share the folder waits some seconds, because the other one may be about to share it too.
    monkeypatch.setattr("rediffuse.files._PATIENCE", 0.1)
    line = f"{tmp_path}: another process is writing to this folder; wait until it ends"
    with holder(tmp_path, others), pytest.raises(StorageError, match=line), claim(tmp_path, shared=own == "shared"):
        pass
    with claim(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_process_that_shares_a_folder_waits_while_another_one_prepares_it(tmp_path: Path) -> None:
    begun, prepared = threading.Event(), threading.Event()

    def prepare(_: bool) -> None:
        begun.set()
        prepared.wait()

    def share() -> None:
        with claim(tmp_path, shared=True, prepare=prepare):
            pass

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(share)
        begun.wait()
        threading.Timer(0.05, prepared.set).start()
        with claim(tmp_path, shared=True):
            pass
        other.result()


def test_a_process_that_needs_the_folder_for_itself_does_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait(_: float) -> None:
        raise AssertionError

    monkeypatch.setattr("rediffuse.files.time.sleep", wait)
    with claim(tmp_path), pytest.raises(StorageError, match="another process"), claim(tmp_path):
        pass


def test_a_folder_can_be_shared_and_the_last_process_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    seen = []
    with holder(tmp_path, "shared") as other, claim(tmp_path, shared=True, prepare=seen.append):
        other.kill()
        other.wait()
        assert len(list(tmp_path.glob(".a.txt.*"))) == 1
    assert seen == [False]
    assert not list(tmp_path.iterdir())


def test_the_next_process_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    with holder(tmp_path / "sub", "alone") as other:
        other.kill()
    seen: list[bool] = []
    with claim(tmp_path / "sub", prepare=seen.append):
        assert [path.name for path in (tmp_path / "sub").iterdir()] == [".rediffuse.lock"]
    assert seen == [True]
    assert not list((tmp_path / "sub").iterdir())


def test_files_of_other_programs_stay_where_no_process_was_killed(tmp_path: Path) -> None:
    (tmp_path / ".a.png.0c3f81ab.png").touch()
    with claim(tmp_path):
        pass
    assert (tmp_path / ".a.png.0c3f81ab.png").exists()


def test_what_cannot_be_removed_from_a_folder_is_named_and_the_folder_can_be_claimed_again(tmp_path: Path) -> None:
    (tmp_path / ".rediffuse.lock").touch()
    (tmp_path / ".a.png.0c3f81ab.png").mkdir()
    with pytest.raises(StorageError, match=r"\.a\.png\.0c3f81ab\.png: could not be removed"), claim(tmp_path):
        pass
    (tmp_path / ".a.png.0c3f81ab.png").rmdir()
    with claim(tmp_path):
        pass


def test_the_claim_has_the_rights_that_the_mask_leaves(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        with claim(tmp_path):
            assert (tmp_path / ".rediffuse.lock").stat().st_mode & 0o777 == 0o666
    finally:
        os.umask(mask)


def test_a_child_process_does_not_keep_the_folder(tmp_path: Path) -> None:
    script = (
        "import os, sys, time; from pathlib import Path; from rediffuse.files import claim\n"
        "with claim(Path(sys.argv[1])):\n"
        "    if os.fork() == 0: print('mine', flush=True)\n"
        "    time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "mine\n"
        parent.kill()
        parent.wait()
        with claim(tmp_path):
            pass
        os.killpg(parent.pid, signal.SIGKILL)


def test_an_empty_folder_that_the_claim_made_goes_again(tmp_path: Path) -> None:
    with claim(tmp_path / "new"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_there_is_not_replaced_unless_it_is_allowed(tmp_path: Path) -> None:
    def write() -> None:
        with atomic_write(tmp_path / "a.txt", replace=False) as partial:
            partial.write_text("later")

    write()
    with pytest.raises(InputError, match=r"a\.txt: exists already; --force replaces it"):
        write()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["later"]


def test_a_new_file_is_written_also_on_a_file_system_without_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr("rediffuse.files.os.link", refuse)
    with atomic_write(tmp_path / "a.txt", replace=False) as partial:
        partial.write_text("new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["new"]


def test_a_file_in_a_store_is_written_and_removed() -> None:
    path = StoreFolder(f"memory:///{uuid.uuid4()}") / "a.txt"
    write_bytes(path, b"content")
    assert path.read_bytes() == b"content"
    remove(path)
    assert not path.exists()


def test_what_cannot_be_removed_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match=r"folder: could not be removed: Is a directory$"):
        remove(tmp_path / "folder")
    remove(tmp_path / "missing")


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")  # the example of FIPS 180-4
    assert sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with atomic_folder(tmp_path / "new" / "folder") as partial:
            (partial / name).write_text(name)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["folder"]
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["b"]


def test_a_failed_block_leaves_the_folder_that_was_there_and_nothing_else(tmp_path: Path) -> None:
    def fail_half_way() -> None:
        with atomic_folder(tmp_path / "folder") as partial:
            (partial / "b").write_text("half")
            raise ZeroDivisionError

    write_bytes(tmp_path / "folder" / "a", b"before")
    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == ["folder", "folder/a"]


def test_a_folder_that_cannot_be_written_is_named_with_the_reason(tmp_path: Path) -> None:
    def write() -> None:
        with atomic_folder(tmp_path / "file" / "folder"):
            raise AssertionError

    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=f"^{tmp_path}/file/folder: could not be written: File exists$"):
        write()
