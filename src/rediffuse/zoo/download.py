"""A file over HTTP, complete and verified, or the reason why not.

A transfer that breaks off is continued where it stopped: what came lies in `<name>.partial`, and beside it its ETag or
Last-Modified, without which two halves might come from two versions of the file.
"""

import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
from filelock import FileLock, Timeout

from rediffuse.errors import FetchError, StorageError
from rediffuse.files import write_bytes

Progress = Callable[[int, int | None], None]
"""Called with the bytes that have come and the bytes of the whole file, where that is known."""

_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses that may pass by themselves (RFC 9110; 425: RFC 8470, 429: RFC 6585)."""
_TIMEOUT = 30.0
"""Seconds without a connection or without a byte."""


def download(
    url: str,
    destination: Path,
    find_fault: Callable[[Path], str],
    *,
    progress: Progress | None = None,
    attempts: int = 5,
    pause: float = 1.0,
) -> None:
    """Download a file that is not here yet.

    Args:
        url: http or https; a redirection from https to http is refused.
        destination: the file; its folder is made.
        find_fault: says what is wrong with a complete file, or an empty string where nothing is.
        progress: called with how far it is.
        attempts: failures in a row without a single new byte.
        pause: seconds before the second attempt; doubled each time.

    Raises:
        FetchError: the server does not have it or cannot be reached (what came stays, and the next call continues
            there), or what came has a fault (then it is deleted).
        StorageError: no room or no permission; what came is deleted.
    """
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(destination.with_name(f".{destination.name}.lock"), timeout=0):
            partial = _Partial(destination)
            _persist(url, partial, progress, attempts, pause)
            try:
                if fault := find_fault(partial.path):
                    raise FetchError(f"{url}: {fault}; what came was deleted")
                partial.path.replace(destination)
            finally:
                partial.delete()
    except Timeout:
        raise FetchError(f"{destination}: another program is downloading it") from None
    except OSError as error:
        raise StorageError(f"{destination}: could not be written: {error.strerror or error}") from error


class _BrokenOff(Exception):
    """The transfer failed in a way that another attempt may mend."""


class _Partial:
    """What came of a file, and the ETag or Last-Modified that it came with."""

    def __init__(self, destination: Path) -> None:
        self.path = destination.with_name(f"{destination.name}.partial")
        self._version = destination.with_name(f"{destination.name}.partial.version")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def version(self) -> bytes:
        return self._version.read_bytes() if self._version.exists() else b""

    def begin(self, version: bytes) -> None:
        self.delete()
        write_bytes(self._version, version)

    def delete(self) -> None:
        self.path.unlink(missing_ok=True)
        self._version.unlink(missing_ok=True)


def _persist(url: str, partial: _Partial, progress: Progress | None, attempts: int, pause: float) -> None:
    """Attempt after attempt, until all has come or nothing new came for too long."""
    failures, most = 0, partial.size
    headers = {"User-Agent": "rediffuse", "Accept-Encoding": "identity"}
    with httpx2.Client(headers=headers, timeout=_TIMEOUT, follow_redirects=True) as client:
        while True:
            try:
                return _receive(client, url, partial, progress)
            except (OSError, StorageError):
                partial.delete()
                raise
            except (_BrokenOff, httpx2.HTTPError) as error:
                failures = 1 if partial.size > most else failures + 1
                most = max(most, partial.size)
                if failures >= attempts:
                    reason = " ".join(str(error).split()) or type(error).__name__
                    raise FetchError(f"{url}: {reason} (given up after {failures} failures in a row)") from None
                time.sleep(pause * 2 ** (failures - 1))


def _receive(client: httpx2.Client, url: str, partial: _Partial, progress: Progress | None) -> None:
    """One request for the rest. It begins with the last byte that came, so that a complete file has a rest, too."""
    start = max(partial.size - 1, 0) if partial.version else 0
    with client.stream("GET", url, headers={"Range": f"bytes={start}-"} if start else {}) as response:
        if url.startswith("https:") and response.url.scheme != "https":
            raise FetchError(f"{url}: leads to {response.url}, which is not https")
        status, header = response.status_code, response.headers
        etag = header.get("ETag", "")  # a weak one (W/) may stand for other bytes
        version = (etag if etag.startswith('"') else header.get("Last-Modified", "")).encode()
        is_rest = header.get("Content-Range", "").startswith(f"bytes {start}-") and version == partial.version
        if status == 416 or (status == 206 and not is_rest):
            partial.delete()
            raise _BrokenOff("the server has another version of the file than before")
        if status not in (200, 206):
            answer = f"the server answers {status} ({response.reason_phrase})"
            raise _BrokenOff(answer) if status in _RETRIED else FetchError(f"{url}: {answer}")
        if status == 200:
            start = 0
            partial.begin(version)
        length = header.get("Content-Range", "").rpartition("/")[2] if start else header.get("Content-Length", "")
        total = int(length) if re.fullmatch(r"[0-9]{1,19}", length) else None
        missing, free = (total or 0) - start, shutil.disk_usage(partial.path.parent).free
        if missing > free:
            raise StorageError(f"{partial.path}: {missing} bytes are needed, but the disk has {free} free")
        with partial.path.open("r+b" if start else "wb") as file:
            file.seek(start)
            for chunk in response.iter_raw():
                file.write(chunk)
                if progress:
                    progress(file.tell(), total)
            if total not in (None, file.tell()):
                raise _BrokenOff(f"{file.tell()} of {total} bytes came")
