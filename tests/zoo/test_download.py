"""Downloads from a real server that breaks off, forgets, lies and changes its mind."""

import hashlib
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from rediffuse.errors import FetchError, StorageError
from rediffuse.zoo.download import Expected, Patience, download

CONTENT = bytes(i * 7 % 256 for i in range(1 << 18))
SHA256 = hashlib.sha256(CONTENT).hexdigest()
IMPATIENT = Patience(attempts=1, timeout=5)
PATIENT = Patience(attempts=2, pause=0.01, timeout=5)


@pytest.fixture
def file(tmp_path: Path, server) -> Path:
    server.content = CONTENT
    return tmp_path / "cache" / "weights.pt"


@contextmanager
def files_at_most(num_bytes: int) -> Iterator[None]:
    """The system refuses to let a file grow beyond this size, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def left(file: Path) -> list[str]:
    """What lies beside the file, but for the lock."""
    return sorted(path.name for path in file.parent.iterdir() if path.suffix != ".lock")


def test_a_file_comes_whole_and_tells_its_progress(server, file: Path) -> None:
    seen = []
    sha256 = download(server.url, file, Expected(sha256=SHA256), progress=lambda *of: seen.append(of))
    assert (sha256, file.read_bytes()) == (SHA256, CONTENT)
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert left(file) == ["weights.pt"]


@pytest.mark.parametrize("dated", [False, True])
def test_a_transfer_that_breaks_off_is_taken_up_where_it_stopped(server, file: Path, date: str, dated: bool) -> None:
    if dated:  # a weak ETag may stand for other bytes, so the date has to do
        server.etag, server.last_modified = 'W/"weak"', date
    server.breaks_after = [100_000, 50_000]
    assert download(server.url, file, patience=PATIENT) == SHA256
    assert server.ranges == [None, "bytes=100000-", "bytes=150000-"]


def test_the_next_call_takes_up_what_an_earlier_one_left(server, file: Path) -> None:
    server.breaks_after = [100_000]
    with pytest.raises(FetchError, match="broke off after 100000 of 262144 bytes"):
        download(server.url, file, patience=IMPATIENT)
    assert left(file) == ["weights.pt.partial", "weights.pt.partial.validator"]
    assert download(server.url, file, patience=IMPATIENT) == SHA256
    assert server.ranges == [None, "bytes=100000-"]
    assert left(file) == ["weights.pt"]


def test_a_server_without_ranges_sends_all_of_it_again(server, file: Path) -> None:
    server.knows_ranges = False
    server.breaks_after = [100_000]
    assert download(server.url, file, patience=PATIENT) == SHA256


def test_halves_of_two_files_are_never_joined(server, file: Path) -> None:
    server.breaks_after = [100_000]
    with pytest.raises(FetchError):
        download(server.url, file, patience=IMPATIENT)
    server.content, server.etag = CONTENT[::-1], '"second"'
    assert download(server.url, file, patience=IMPATIENT) == hashlib.sha256(CONTENT[::-1]).hexdigest()


def test_without_a_validator_nothing_is_taken_up(server, file: Path) -> None:
    server.etag = ""
    server.breaks_after = [100_000]
    assert download(server.url, file, patience=PATIENT) == SHA256
    assert server.ranges == [None, None]


def test_a_partial_file_longer_than_the_file_starts_over(server, file: Path) -> None:
    server.breaks_after = [200_000]
    with pytest.raises(FetchError):
        download(server.url, file, patience=IMPATIENT)
    server.content = CONTENT[:1000]
    assert download(server.url, file, patience=PATIENT) == hashlib.sha256(CONTENT[:1000]).hexdigest()


def test_a_file_of_unknown_length_comes_whole(server, file: Path) -> None:
    server.tells_length = False
    assert download(server.url, file, Expected(sha256=SHA256)) == SHA256


def test_a_busy_server_is_asked_again(server, file: Path) -> None:
    server.statuses = [503]
    assert download(server.url, file, patience=PATIENT) == SHA256


def test_what_the_server_does_not_have_is_asked_for_once(server, file: Path) -> None:
    server.statuses = [404, 404]
    with pytest.raises(FetchError, match=r"weights\.pt: the server answers 404 \(Not Found\)"):
        download(server.url, file, patience=PATIENT)
    assert len(server.ranges) == 1


def test_a_refused_connection_is_one_line_after_the_attempts(file: Path, server) -> None:
    closed = "http://127.0.0.1:1/weights.pt"
    with pytest.raises(FetchError, match=r"no connection: .*refused.*2 failures in a row") as caught:
        download(closed, file, patience=PATIENT)
    assert "\n" not in str(caught.value)


def test_a_wrong_checksum_deletes_what_came(server, file: Path) -> None:
    with pytest.raises(FetchError, match=f"has sha256 {SHA256}, but 0+ is expected; what came was deleted"):
        download(server.url, file, Expected(sha256="0" * 64))
    assert left(file) == []


def test_a_page_instead_of_the_file_is_refused_before_it_comes(server, file: Path) -> None:
    server.content = b"<html>please log in</html>"
    with pytest.raises(FetchError, match="offers 26 bytes, but at least 1000 are expected"):
        download(server.url, file, Expected(min_bytes=1000))
    assert left(file) == []


def test_a_disk_that_refuses_leaves_nothing_behind(server, file: Path) -> None:
    with files_at_most(100_000), pytest.raises(StorageError, match=r"weights\.pt: could not be written: File too"):
        download(server.url, file, patience=IMPATIENT)
    assert left(file) == []


def test_a_file_larger_than_the_free_disk_is_refused_before_it_comes(server, file: Path) -> None:
    server.claims_length = 10**18
    with pytest.raises(StorageError, match=f"{10**18} bytes are needed, but the disk has [0-9]+ free"):
        download(server.url, file)
    assert left(file) == []


def test_a_file_that_is_here_needs_no_server(file: Path, server) -> None:
    file.parent.mkdir()
    file.write_bytes(CONTENT)
    assert download("http://127.0.0.1:1/weights.pt", file, Expected(sha256=SHA256)) == SHA256


def test_a_file_that_is_here_but_another_is_not_replaced(file: Path, server) -> None:
    file.parent.mkdir()
    file.write_bytes(b"mine")
    with pytest.raises(FetchError, match=r"cache/weights\.pt: has sha256 .* delete it to download it again"):
        download(server.url, file, Expected(sha256=SHA256))
    assert file.read_bytes() == b"mine"


def test_only_one_program_downloads_a_file(server, file: Path) -> None:
    file.parent.mkdir()
    with FileLock(file.with_name(".weights.pt.lock")), pytest.raises(FetchError, match="another program"):
        download(server.url, file)


def test_only_http_is_read(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="only http and https"):
        download((tmp_path / "secret").as_uri(), tmp_path / "weights.pt")


def test_a_redirection_is_followed(server, file: Path) -> None:
    server.statuses, server.location = [302], server.url
    assert download(server.url, file, patience=IMPATIENT) == SHA256
