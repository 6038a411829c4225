"""A file over HTTP, whole and verified, or a clear reason why not.

A transfer that breaks off is taken up where it stopped: what has come lies in `<name>.partial`, and beside it the
server's validator (ETag or date), without which two halves might come from two different files.
"""

import hashlib
import http.client
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rediffuse.errors import FetchError, StorageError
from rediffuse.files import write_bytes

Progress = Callable[[int, int | None], None]
"""Told the bytes that are there and the bytes that there will be, where that is known."""

_CHUNK = 1 << 20
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses that may pass by themselves (RFC 9110; 425: RFC 8470, 429: RFC 6585)."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a download goes on trying."""

    attempts: int = 5
    """Failures in a row without a single new byte."""
    pause: float = 1.0
    """Seconds before the second attempt; doubled each time."""
    timeout: float = 30.0
    """Seconds without an answer."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What must have come for a download to be kept."""

    sha256: str | None = None
    min_bytes: int = 0


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(
    url: str,
    destination: Path,
    expected: Expected = Expected(),
    *,
    patience: Patience = Patience(),
    progress: Progress | None = None,
) -> str:
    """Download a file whole, or verify the one that is there; returns its SHA-256.

    Args:
        url: http or https; from https no redirection leads back to http.
        destination: the file; its folder is made.
        expected: what must be true of the file.
        patience: how often and how long to try again.
        progress: told how far it is.

    Raises:
        FetchError: the server does not have it or cannot be reached (what has come stays and is taken up by the next
            call), or what came does not verify (then it is deleted).
        StorageError: no room or no permission; nothing is left behind.
    """
    if not url.startswith(("http://", "https://")):
        raise FetchError(f"{url}: only http and https addresses can be downloaded")
    if not destination.is_file():
        partial = _Partial(destination)
        with _alone(destination):
            try:
                _persist(url, partial, expected, patience, progress)
                sha256 = partial.keep(url, expected)
            except StorageError:
                partial.forget()
                raise
        return sha256
    sha256 = sha256_of(destination)
    fault = _fault(destination.stat().st_size, sha256, expected)
    if fault:
        raise FetchError(f"{destination}: {fault}; delete it to download it again")
    return sha256


class _BrokenOff(Exception):
    """The transfer failed in a way that another attempt may mend."""


class _Partial:
    """What has come of a file so far, and the server's word for which file it is part of."""

    def __init__(self, destination: Path) -> None:
        self.destination = destination
        self.path = destination.with_name(f"{destination.name}.partial")
        self._validator = destination.with_name(f"{destination.name}.partial.validator")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    @property
    def validator(self) -> str:
        return self._validator.read_text() if self._validator.is_file() else ""

    def begin(self, validator: str) -> None:
        """Forget what was there; what comes now is of the file that `validator` stands for."""
        self.forget()
        if validator:
            write_bytes(self._validator, validator.encode())

    def keep(self, url: str, expected: Expected) -> str:
        """Give the complete file its name, if it is what was expected; returns its SHA-256."""
        sha256 = sha256_of(self.path)
        fault = _fault(self.size, sha256, expected)
        if fault:
            self.forget()
            raise FetchError(f"{url}: {fault}; what came was deleted")
        with _disk(self.destination):
            self.path.replace(self.destination)
        self.forget()
        return sha256

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)
        self._validator.unlink(missing_ok=True)


def _persist(url: str, partial: _Partial, expected: Expected, patience: Patience, progress: Progress | None) -> None:
    """Attempt after attempt, until all has come or nothing new came for too long."""
    failures, most = 0, partial.size
    while True:
        try:
            return _receive(url, partial, expected, patience.timeout, progress)
        except _BrokenOff as error:
            failures = 1 if partial.size > most else failures + 1
            most = max(most, partial.size)
            if failures >= patience.attempts:
                raise FetchError(f"{url}: {error} (given up after {failures} failures in a row)") from error
            time.sleep(patience.pause * 2 ** (failures - 1))


def _receive(url: str, partial: _Partial, expected: Expected, timeout: float, progress: Progress | None) -> None:
    """One request for what is missing. If-Range (RFC 9110, 13.1.5): all of it, where the file is another by now."""
    headers = {"User-Agent": "rediffuse"}
    if partial.size and partial.validator:
        headers |= {"Range": f"bytes={partial.size}-", "If-Range": partial.validator}
    with _open(urllib.request.Request(url, headers=headers), partial, timeout) as response:
        if url.startswith("https:") and not response.url.startswith("https:"):
            raise FetchError(f"{url}: leads to {response.url}, which is not https")
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {partial.size}-"):
            partial.forget()
            raise _BrokenOff("the server sent another range than was asked for")
        if not resumed:
            partial.begin(_validator(response))
        total = partial.size + int(response.headers["Content-Length"]) if "Content-Length" in response.headers else None
        if total is not None:
            _check_room(url, partial, total, expected)
        with _disk(partial.destination), partial.path.open("ab") as file:
            for chunk in _chunks(response):
                file.write(chunk)
                if progress:
                    progress(file.tell(), total)
    if total is not None and partial.size != total:
        raise _BrokenOff(f"broke off after {partial.size} of {total} bytes")


@contextmanager
def _open(request: urllib.request.Request, partial: _Partial, timeout: float) -> Iterator[http.client.HTTPResponse]:
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            partial.forget()
            raise _BrokenOff("the file is shorter than it was") from None
        answer = f"the server answers {error.code} ({error.reason})"
        if error.code in _RETRIED:
            raise _BrokenOff(answer) from None
        raise FetchError(f"{request.full_url}: {answer}") from None
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOff(f"no connection: {_one_line(error)}") from None
    with response:
        yield response


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.read(_CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _BrokenOff(f"broke off: {_one_line(error)}") from None
        if not chunk:
            return
        yield chunk


def _validator(response: http.client.HTTPResponse) -> str:
    """A strong ETag, or the date; a weak ETag may stand for other bytes."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


def _check_room(url: str, partial: _Partial, total: int, expected: Expected) -> None:
    if total < expected.min_bytes:
        partial.forget()
        raise FetchError(f"{url}: the server offers {total} bytes, but at least {expected.min_bytes} are expected")
    free = shutil.disk_usage(partial.path.parent).free
    missing = total - partial.size
    if missing > free:
        raise StorageError(f"{partial.destination}: {missing} bytes are needed, but the disk has {free} free")


def _fault(size: int, sha256: str, expected: Expected) -> str:
    if size < expected.min_bytes:
        return f"has {size} bytes, but at least {expected.min_bytes} are expected"
    if expected.sha256 not in (None, sha256):
        return f"has sha256 {sha256}, but {expected.sha256} is expected"
    return ""


@contextmanager
def _alone(destination: Path) -> Iterator[None]:
    """One download of a file at a time: two would write into the same partial file."""
    from filelock import FileLock, Timeout

    with _disk(destination):
        destination.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(destination.with_name(f".{destination.name}.lock"), timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise FetchError(f"{destination}: another program is downloading it") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: could not be written: {error.strerror or error}") from error


def _one_line(error: Exception) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return re.sub(r"\s+", " ", str(reason)) or type(error).__name__
