"""Downloads from a real server that breaks connections, ignores ranges, sends wrong headers and changes its file."""

import contextlib
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from faults import files_at_most
from rediffuse.errors import FetchError, StorageError
from rediffuse.zoo.download import download

CONTENT = bytes(i * 7 % 256 for i in range(1 << 18))
IMPATIENT = {"attempts": 1}
PATIENT = {"attempts": 2, "pause": 0.01}


@pytest.fixture
def file(tmp_path: Path, server) -> Path:
    server.content = CONTENT
    return tmp_path / "cache" / "weights.pt"


def whole(path: Path) -> str:
    """The error of a file that is not equal to CONTENT."""
    return "" if path.stat().st_size == len(CONTENT) else "is not whole"


def anything(path: Path) -> str:
    """Accepts every file."""
    return ""


def left(file: Path) -> list[str]:
    """The other files in its folder, except the lock."""
    return sorted(path.name for path in file.parent.iterdir() if path.suffix != ".lock")


def test_a_file_comes_whole_and_tells_its_progress(server, file: Path) -> None:
    seen = []
    download(server.url, file, whole, progress=lambda *of: seen.append(of))
    assert file.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert left(file) == ["weights.pt"]


@pytest.mark.parametrize("dated", [False, True])
def test_a_transfer_that_breaks_off_is_taken_up_where_it_stopped(server, file: Path, date: str, dated: bool) -> None:
    if dated:  # a weak ETag may be equal for different bytes, so the date is used
        server.etag, server.last_modified = 'W/"weak"', date
    server.breaks_after = [100_000, 50_001]
    download(server.url, file, whole, **PATIENT)
    assert file.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=99999-", "bytes=149999-"]  # the last byte is requested again


def test_a_line_that_breaks_often_brings_all_of_a_file(server, file: Path) -> None:
    server.breaks_after = [10_000] * 26
    download(server.url, file, whole, attempts=2, pause=0)
    assert file.read_bytes() == CONTENT
    assert len(server.ranges) == 27


def test_the_next_call_takes_up_what_an_earlier_one_left(server, file: Path) -> None:
    server.breaks_after = [100_000]
    with pytest.raises(FetchError, match=r"received 100000 bytes, expected 262144"):
        download(server.url, file, whole, **IMPATIENT)
    assert left(file) == ["weights.pt.partial", "weights.pt.partial.version"]
    download(server.url, file, whole, **IMPATIENT)
    assert file.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=99999-"]
    assert left(file) == ["weights.pt"]


def test_a_partial_file_that_is_whole_is_not_sent_again(server, file: Path) -> None:
    server.claims_length, server.breaks_after = len(CONTENT) + 1, [len(CONTENT)]
    with pytest.raises(FetchError):
        download(server.url, file, whole, **IMPATIENT)
    server.claims_length = None
    download(server.url, file, whole, **IMPATIENT)
    assert file.read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={len(CONTENT) - 1}-"]


def test_a_server_without_ranges_sends_all_of_it_again(server, file: Path) -> None:
    server.knows_ranges = False
    server.breaks_after = [100_000]
    download(server.url, file, whole, **PATIENT)
    assert file.read_bytes() == CONTENT


@pytest.mark.parametrize("etag", ['"second"', ""])
def test_halves_of_two_files_are_never_joined(server, file: Path, etag: str) -> None:
    server.breaks_after = [100_000]
    with pytest.raises(FetchError):
        download(server.url, file, whole, **IMPATIENT)
    server.content, server.etag = CONTENT[::-1], etag
    download(server.url, file, whole, **PATIENT)
    assert file.read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("content_range", ["bytes 5-9/10", "bytes */262144", "\xe9"])
def test_another_range_than_the_one_asked_for_is_not_joined(server, file: Path, content_range: str) -> None:
    server.breaks_after = [100_000]
    server.content_range = content_range
    download(server.url, file, whole, attempts=3, pause=0)
    assert file.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=99999-", None]


@pytest.mark.parametrize("damaged", [b"", b"\xff\n"])
def test_a_damaged_record_of_the_version_begins_anew(server, file: Path, damaged: bytes) -> None:
    server.breaks_after = [100_000]
    with pytest.raises(FetchError):
        download(server.url, file, whole, **IMPATIENT)
    file.with_name("weights.pt.partial.version").write_bytes(damaged)
    download(server.url, file, whole, **PATIENT)
    assert file.read_bytes() == CONTENT


def test_without_a_validator_nothing_is_taken_up(server, file: Path) -> None:
    server.etag = ""
    server.breaks_after = [100_000]
    download(server.url, file, whole, **PATIENT)
    assert file.read_bytes() == CONTENT
    assert server.ranges == [None, None]


def test_a_partial_file_longer_than_the_file_starts_over(server, file: Path) -> None:
    server.breaks_after = [200_000]
    with pytest.raises(FetchError):
        download(server.url, file, whole, **IMPATIENT)
    server.content = CONTENT[:1000]
    download(server.url, file, anything, **PATIENT)
    assert file.read_bytes() == CONTENT[:1000]


def test_a_file_of_unknown_length_comes_whole(server, file: Path) -> None:
    server.tells_length = False
    download(server.url, file, whole)
    assert file.read_bytes() == CONTENT


def test_a_busy_server_is_asked_again(server, file: Path) -> None:
    server.statuses = [503]
    download(server.url, file, whole, **PATIENT)
    assert file.read_bytes() == CONTENT


def test_what_the_server_does_not_have_is_asked_for_once(server, file: Path) -> None:
    server.statuses = [404, 404]
    with pytest.raises(FetchError, match=r"weights\.pt: the server answers 404 \(Not Found\)"):
        download(server.url, file, whole, **PATIENT)
    assert len(server.ranges) == 1


def test_a_refused_connection_is_one_line_after_the_attempts(file: Path, server) -> None:
    closed = "http://127.0.0.1:1/weights.pt"
    with pytest.raises(FetchError, match=r"refused.*2 consecutive failures") as caught:
        download(closed, file, whole, **PATIENT)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("tells_length", [True, False])
def test_a_file_with_a_fault_is_deleted(server, file: Path, tells_length: bool) -> None:
    server.content, server.tells_length = CONTENT[:1000], tells_length
    with pytest.raises(FetchError, match=r"weights\.pt: is not whole; the file was deleted"):
        download(server.url, file, whole)
    assert left(file) == []


def test_a_disk_that_refuses_leaves_nothing_behind(server, file: Path) -> None:
    with files_at_most(100_000), pytest.raises(StorageError, match=r"weights\.pt: could not be written: File too"):
        download(server.url, file, whole, **IMPATIENT)
    assert left(file) == []


def test_a_file_larger_than_the_free_disk_is_refused_before_it_comes(server, file: Path) -> None:
    server.claims_length = 10**18
    with pytest.raises(StorageError, match=f"{10**18} bytes are needed, but the disk has [0-9]+ free"):
        download(server.url, file, whole)
    assert left(file) == []


def test_a_folder_that_cannot_be_made_is_one_line(server, tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"a file")
    with pytest.raises(StorageError, match=r"weights\.pt: could not be written: "):
        download(server.url, tmp_path / "cache" / "weights.pt", whole)


def test_only_one_program_downloads_a_file(server, file: Path) -> None:
    file.parent.mkdir()
    lock = file.with_name(".weights.pt.lock")
    program = (
        f"import filelock, sys\nwith filelock.FileLock({str(lock)!r}):\n    print('mine', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "mine\n"
        with pytest.raises(FetchError, match="another program is downloading it"):
            download(server.url, file, whole)
        other.communicate()
    download(server.url, file, whole)
    assert file.read_bytes() == CONTENT


def test_a_server_that_sends_a_byte_now_and_then_is_left_and_what_came_is_kept(server, file: Path) -> None:
    server.drip = 0.05
    with pytest.raises(FetchError, match=r"\d bytes in \d+ seconds are too few"):
        download(server.url, file, whole, timeout=0.3, **IMPATIENT)
    received = file.with_name("weights.pt.partial").stat().st_size
    server.drip = 0
    download(server.url, file, whole, **IMPATIENT)
    assert file.read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={received - 1}-"]


def test_headers_that_come_a_byte_now_and_then_are_not_waited_for(file: Path) -> None:
    def drip() -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            for byte in b"HTTP/1.1 200 OK\r\n" + b"X-Long: 1\r\n" * 10_000:
                connection.sendall(bytes([byte]))
                time.sleep(0.05)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip)
        thread.start()
        begun = time.monotonic()
        with pytest.raises(FetchError, match="given up after 1 consecutive failures"):
            download(f"http://127.0.0.1:{listener.getsockname()[1]}/a", file, whole, timeout=0.3, **IMPATIENT)
        assert time.monotonic() - begun < 5
        thread.join()


@pytest.mark.parametrize(
    "location", ["http://[::1", "http://a:99999/", "ftp://a/b", "http://\xe9\udc80.example", "?\x00"]
)
def test_a_redirection_to_no_address_is_one_line(server, file: Path, location: str) -> None:
    server.statuses, server.location = [302], location.encode("utf-8", "surrogateescape").decode("latin-1")
    with pytest.raises(FetchError) as caught:
        download(server.url, file, whole, **IMPATIENT)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Length": "-1"},
        {"Content-Length": "9" * 5000},
        {"Content-Encoding": "gzip"},
        {"Transfer-Encoding": "odd"},
        {"ETag": '"\xff\x80"'},
        {"Set-Cookie": "\xff=;;;=\x01"},
        {"Last-Modified": "x" * 5000},
    ],
)
def test_odd_headers_give_the_file_or_one_line(server, file: Path, headers: dict[str, str]) -> None:
    server.headers, server.tells_length = headers, False
    line = ""
    try:
        download(server.url, file, whole, **IMPATIENT)
        assert file.read_bytes() == CONTENT
    except FetchError as error:
        line = str(error)
    assert line.isprintable()


@pytest.mark.parametrize("name", ["weights.pt", "weights.pt.partial", "weights.pt.partial.version", ".weights.pt.lock"])
def test_a_folder_in_the_place_of_a_file_is_one_line(server, file: Path, name: str) -> None:
    (file.parent / name / "inner").mkdir(parents=True)
    with pytest.raises((FetchError, StorageError), match=r"weights\.pt"):
        download(server.url, file, whole, **IMPATIENT)
    assert (file.parent / name / "inner").exists()


def test_only_http_is_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(CONTENT)
    with pytest.raises(FetchError, match="missing an 'http://' or 'https://' protocol"):
        download((tmp_path / "secret").as_uri(), tmp_path / "weights.pt", anything, **IMPATIENT)


def test_a_redirection_is_followed(server, file: Path) -> None:
    server.statuses, server.location = [302], server.url
    download(server.url, file, whole, **IMPATIENT)
    assert file.read_bytes() == CONTENT
