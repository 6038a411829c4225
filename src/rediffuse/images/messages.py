"""Messages between a process and its decoder (`isolation`, `worker`): a kind of one byte, the length, the content."""

import struct
from typing import IO

REQUEST, FILE, STORED, ROWS, DONE, ERROR = b"Q", b"F", b"S", b"R", b"D", b"E"

_HEAD = struct.Struct("<cQ")


def write(stream: IO[bytes], kind: bytes, content: bytes | memoryview = b"") -> None:
    """Send a message. Raises BrokenPipeError if the other process has ended."""
    stream.write(_HEAD.pack(kind, len(content)))
    stream.write(content)
    stream.flush()


def read(stream: IO[bytes]) -> tuple[bytes, bytes]:
    """The kind and the content of the next message. Raises EOFError if the other process has ended."""
    kind, length = _HEAD.unpack(_exactly(stream, _HEAD.size))
    return kind, _exactly(stream, length)


def _exactly(stream: IO[bytes], length: int) -> bytes:
    content = stream.read(length)
    if len(content) < length:
        raise EOFError
    return content
