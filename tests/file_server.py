"""A real HTTP server on this machine that supports ranges, and can break off, fail, and change its file."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer(ThreadingHTTPServer):
    """A server that returns `content` for every path."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = b""
        self.etag = '"first"'
        self.last_modified = ""
        self.claims_length: int | None = None
        """A Content-Length to send instead of the true one."""
        self.content_range = ""
        """A Content-Range to send instead of the true one."""
        self.knows_ranges = True
        self.tells_length = True
        self.breaks_after: list[int] = []
        """For each of the next responses: close the connection after this number of bytes."""
        self.statuses: list[int] = []
        """The status codes of the next responses, instead of the file."""
        self.location = ""
        """The Location of a 302."""
        self.drip = 0.0
        """Seconds between two bytes of what is sent after the first line of the headers; 0 sends all at once."""
        self.headers: dict[str, str] = {}
        """Further headers."""
        self.ranges: list[str | None] = []
        """The Range header of every request so far."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/weights.pt"


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        server = self.server
        server.ranges.append(self.headers.get("Range"))
        if server.statuses:
            self.send_response(server.statuses.pop(0))
            if server.location:
                self.send_header("Location", server.location)
            self.end_headers()
            return
        start = self._start()
        if start >= len(server.content) > 0:
            self.send_error(416)
            return
        body = server.content[start:]
        self.send_response(206 if start else 200)
        if start:
            true = f"bytes {start}-{len(server.content) - 1}/{len(server.content)}"
            self.send_header("Content-Range", server.content_range or true)
        if server.tells_length:
            self.send_header("Content-Length", str(server.claims_length or len(body)))
        dates = {"ETag": server.etag, "Last-Modified": server.last_modified}
        for name, value in (dates | server.headers).items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        while server.drip and body:
            self.wfile.write(body[:1])
            body = body[1:]
            time.sleep(server.drip)
        self.wfile.write(body[: server.breaks_after.pop(0)] if server.breaks_after else body)

    def _start(self) -> int:
        """The first byte of the response."""
        asked = self.headers.get("Range")
        if asked is None or not self.server.knows_ranges:
            return 0
        return int(asked.removeprefix("bytes=").removesuffix("-"))

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serve() -> Iterator[FileServer]:
    """Run a server during the block."""
    with FileServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
