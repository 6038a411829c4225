"""Download a file over HTTP, continue interrupted transfers, and verify the file.

An interrupted transfer continues where it stopped. The bytes so far are in `<name>.partial`, with the file's ETag or
Last-Modified next to it; without these two halves might come from two versions of the file.
"""

import contextlib
import os
import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
from filelock import FileLock, Timeout

from rediffuse.errors import FetchError, StorageError
from rediffuse.files import write_bytes

Progress = Callable[[int, int | None], None]
"""Called with the number of bytes so far, and the number of bytes of the file, if it is known."""

_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Temporary HTTP errors, after which the request is repeated (RFC 9110; 425: RFC 8470, 429: RFC 6585)."""
_TIMEOUT = 30.0
"""Seconds without a connection, or without any data, after which an attempt ends."""
_SLOWEST = 1024
"""Bytes per second. An attempt ends if fewer come during twice the timeout, however regularly."""


def download(
    url: str,
    destination: Path,
    find_fault: Callable[[Path], str],
    *,
    progress: Progress | None = None,
    attempts: int = 5,
    pause: float = 1.0,
    timeout: float = _TIMEOUT,
) -> None:
    """Download a file, if it does not exist yet.

    Args:
        url: http or https; a redirection from https to http is refused.
        destination: the file; its folder is created.
        find_fault: checks a complete file, and returns an error message, or an empty string if the file is correct.
        progress: called with the number of bytes.
        attempts: number of consecutive failures without new data after which the download is given up.
        pause: seconds before the second attempt; doubled each time.
        timeout: seconds without a connection or data after which an attempt ends. It also ends if the headers take
            twice as long, or if fewer than 1,024 bytes a second come in twice this time.

    Raises:
        FetchError: `destination` is a folder, the server does not have the file or cannot be reached (the next call
            continues the transfer), or the file is wrong (it is deleted).
        StorageError: no space or no permission; the incomplete file is deleted.
    """
    if destination.is_dir():
        raise FetchError(f"{destination}: is a folder; remove it to download the file")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(destination.with_name(f".{destination.name}.lock"), timeout=0):
            partial = _Partial(destination)
            _persist(url, partial, progress, attempts, pause, timeout)
            try:
                if fault := find_fault(partial.path):
                    raise FetchError(f"{url}: {fault}; the file was deleted")
                with partial.path.open("rb") as written:
                    os.fsync(written.fileno())  # the name must not outlive the content in a power cut
                partial.path.replace(destination)
            finally:
                partial.delete()
    except Timeout:
        raise FetchError(f"{destination}: another program is downloading it") from None
    except OSError as error:
        raise StorageError(f"{destination}: could not be written: {error.strerror or error}") from error


class _BrokenOff(Exception):
    """The transfer failed, and another attempt may succeed."""


class _Partial:
    """The incomplete file, and its ETag or Last-Modified."""

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


def _persist(
    url: str, partial: _Partial, progress: Progress | None, attempts: int, pause: float, timeout: float
) -> None:
    """Repeat attempts until the file is complete, or too many consecutive attempts gave no new data."""
    failures, most = 0, partial.size
    headers = {"User-Agent": "rediffuse", "Accept-Encoding": "identity"}
    while True:
        try:
            with httpx2.Client(headers=headers, timeout=timeout, follow_redirects=True) as client:
                return _receive(client, url, partial, progress, 2 * timeout)
        except (OSError, StorageError):
            partial.delete()
            raise
        except (_BrokenOff, httpx2.HTTPError, httpx2.InvalidURL) as error:
            failures = 1 if partial.size > most else failures + 1
            most = max(most, partial.size)
            if failures >= attempts:
                reason = " ".join(str(error).split()) or type(error).__name__
                raise FetchError(f"{url}: {reason} (given up after {failures} consecutive failures)") from None
            time.sleep(pause * 2 ** (failures - 1))


def _receive(client: httpx2.Client, url: str, partial: _Partial, progress: Progress | None, patience: float) -> None:
    """Request the missing part. It begins with the last received byte, so that it is never empty."""
    start = max(partial.size - 1, 0) if partial.version else 0
    asked = client.stream("GET", url, headers={"Range": f"bytes={start}-"} if start else {})
    # The client's timeout starts again with every byte, also of the headers; closing the client ends the request.
    watchdog = threading.Timer(patience, client.close)
    with contextlib.ExitStack() as stack:
        watchdog.start()
        try:
            response = stack.enter_context(asked)
        finally:
            watchdog.cancel()
        if url.startswith("https:") and response.url.scheme != "https":
            raise FetchError(f"{url}: redirects to {response.url}, which is not https")
        status, header = response.status_code, response.headers
        etag = header.get("ETag", "")  # a weak one (W/) may be equal for different bytes
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
            since, before = time.monotonic(), start
            for chunk in response.iter_raw():
                file.write(chunk)
                if (seconds := time.monotonic() - since) > patience:
                    if file.tell() - before < _SLOWEST * seconds:
                        raise _BrokenOff(f"{file.tell() - before} bytes in {seconds:.0f} seconds are too few")
                    since, before = time.monotonic(), file.tell()
                if progress:
                    progress(file.tell(), total)
            if total not in (None, file.tell()):
                raise _BrokenOff(f"{file.tell()} of {total} bytes received")
