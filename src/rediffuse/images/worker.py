"""The process that decodes the files of `isolation`, one after the other, each within its budget."""

import json
import math
import resource
import sys
import time
from dataclasses import asdict
from pathlib import Path

from rediffuse.errors import ImageError
from rediffuse.images import messages
from rediffuse.images.limits import Limits
from rediffuse.images.rows import decode_rows


def main() -> None:
    """Decode the files on standard input until it ends."""
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    memory_before = _data_bytes()
    while True:
        try:
            request = json.loads(messages.read(requests)[1])
            content = messages.read(requests)[1]
        except EOFError:
            return
        limits = Limits(**request["limits"])
        # The system ends the process at the first limit; at the second one, allocations fail.
        seconds = math.ceil(time.process_time()) + limits.seconds
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))
        if memory_before is not None:
            most = memory_before + len(content) + limits.memory
            resource.setrlimit(resource.RLIMIT_DATA, (most, resource.RLIM_INFINITY))
        try:
            for part in decode_rows(content, request["name"], limits, first_frame=request["first_frame"]):
                if isinstance(part, bytes):
                    messages.write(replies, messages.ROWS, part)
                else:
                    messages.write(replies, messages.STORED, json.dumps(asdict(part)).encode())
            messages.write(replies, messages.DONE)
        except ImageError as error:
            text = str(error)
            if not isinstance(error.__cause__, MemoryError | None):  # most codecs do not say that an allocation failed
                text += f", or save it smaller if it needs more than {limits.memory >> 20} MiB of memory"
            messages.write(replies, messages.ERROR, text.encode())
        except MemoryError:
            text = (
                f"{request['name']}: needs more than {limits.memory >> 20} MiB of memory to be decoded: save it smaller"
            )
            messages.write(replies, messages.ERROR, text.encode())
        del content


def _data_bytes() -> int | None:
    """The private writable memory of this process, which RLIMIT_DATA limits; None where it is not known (not Linux)."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines["VmData"].split()[0]) * 1024
