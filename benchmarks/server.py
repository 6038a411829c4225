"""Measure `rediffuse serve` on this machine: its speed, its memory, and what it does with faults (docs/server.md).

    python benchmarks/server.py load --data FOLDER     images/s through the server, beside `rediffuse detect --report`
    python benchmarks/server.py clients                memory with 200 clients at the same time
    python benchmarks/server.py schema                 10,000 requests that schemathesis makes from the description
    python benchmarks/server.py faults                 huge uploads, bombs, killed clients and workers, a full disk

The server is a process of its own with the embedded model; all requests go to 127.0.0.1. `schema` needs schemathesis.
"""

import contextlib
import io
import json
import os
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Annotated, Literal

import httpx2
import numpy as np
from PIL import Image
from script import read_flags

from rediffuse.cli.flags import Argument
from rediffuse.images.find import find_images

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
PART = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
SMALL_DISK = 200_000
"""Largest file in bytes where the disk is full."""


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Measure the server in one of four ways."""

    part: Annotated[Literal["load", "clients", "schema", "faults"], Argument(positional=True)]
    """What is measured."""
    data: Path | None = None
    """For load: a folder of images; they are taken at even distances from the sorted list."""
    images: int = 60
    """For load: the number of images."""
    rounds: int = 3
    """For load: measurements in turn; the medians are printed."""
    clients: int = 200
    """For clients: the number of clients; each sends one image, again and again until it is judged."""
    requests: int = 10_000
    """For schema: the number of requests, at least."""


class Server:
    """A running server."""

    def __init__(self, folder: Path, *words: str, limit: Callable[[], None] | None = None) -> None:
        self.work = folder / "work"
        command = [sys.executable, "-m", "rediffuse", "serve", "--port", "0", "--folder", str(self.work), *words]
        log = folder / "log"
        with log.open("w") as file:
            self.process = subprocess.Popen(command, stderr=file, preexec_fn=limit)
        while not (found := re.search(r"^(http://\S+): listening", log.read_text(), re.MULTILINE)):
            assert self.process.poll() is None, log.read_text()
            time.sleep(0.1)
        self.url = found[1]

    def client(self) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, timeout=600, verify=False)

    def worker(self) -> int:
        """The process id of the worker: of the server's children the one with the most memory."""
        listed = subprocess.run(
            ["ps", "-o", "pid=", "--sort=-rss", "--ppid", str(self.process.pid)], capture_output=True, text=True
        )
        return int(listed.stdout.split()[0])

    def is_well(self) -> bool:
        """Whether it judges an image; waits while its worker is being started."""
        with self.client() as client:
            while client.get("/healthz").status_code == 503:
                time.sleep(0.2)
            return client.post("/api/detect", files=form(("a.png", picture()))).status_code == 200

    def stored(self) -> int:
        """The bytes of its files."""
        return sum(path.stat().st_size for path in self.work.rglob("*") if path.is_file())


@contextlib.contextmanager
def running(*words: str, limit: Callable[[], None] | None = None) -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="server-"))
    server = Server(folder, *words, limit=limit)
    try:
        yield server
    finally:
        server.process.terminate()
        server.process.wait()
        shutil.rmtree(folder)


def main(args: Flags) -> None:
    {"load": load, "clients": many_clients, "schema": schema, "faults": faults}[args.part](args)


def load(args: Flags) -> None:
    assert args.data is not None, "--data is needed"
    found = find_images([args.data])
    paths = [one.path for one in found[:: max(1, len(found) // args.images)][: args.images]]
    rates: dict[str, list[float]] = {"detect --report": [], "server, one job": [], "server, four clients": []}
    with running("--max-files", str(len(paths)), "--max-request-bytes", str(1 << 30)) as server:
        assert server.is_well()
        for _ in range(args.rounds):
            os.kill(server.process.pid, signal.SIGSTOP)
            alone = command_seconds(paths[:1])
            rates["detect --report"].append((len(paths) - 1) / (command_seconds(paths) - alone))
            os.kill(server.process.pid, signal.SIGCONT)
            alone = job_seconds(server, [paths[:1]])
            rates["server, one job"].append((len(paths) - 1) / (job_seconds(server, [paths]) - alone))
            four = job_seconds(server, [paths[k::4] for k in range(4)])
            rates["server, four clients"].append((len(paths) - 1) / (four - alone))
    base = float(np.median(rates["detect --report"]))
    print(f"{len(paths)} images, {args.rounds} rounds; all times are without that of the first image")
    for name, values in rates.items():
        rate = float(np.median(values))
        print(f"{name:22} {rate:.3f} images/s  {rate / base:.3f}  ({', '.join(f'{value:.3f}' for value in values)})")


def command_seconds(paths: list[Path]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        since = time.perf_counter()
        words = ["detect", *map(str, paths), "--report", f"{folder}/report.html", "-q"]
        subprocess.run([sys.executable, "-m", "rediffuse", *words], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - since


def job_seconds(server: Server, groups: list[list[Path]]) -> float:
    """The time until every group is uploaded as a job of its own, judged, and its report is read."""

    def one(paths: list[Path]) -> None:
        with server.client() as client:
            job = client.post("/api/jobs", files=form(*((path.name, path.read_bytes()) for path in paths))).json()["id"]
            with client.stream("GET", f"/api/jobs/{job}/events") as stream:
                for _ in stream.iter_lines():
                    pass
            assert client.get(f"/api/jobs/{job}/report").status_code == 200
            client.delete(f"/api/jobs/{job}")

    since = time.perf_counter()
    with ThreadPoolExecutor(len(groups)) as pool:
        list(pool.map(one, groups))
    return time.perf_counter() - since


def many_clients(args: Flags) -> None:
    content, statuses = picture((1500, 1000), "JPEG"), Counter[int]()
    with running("--max-waiting", "100") as server:
        assert server.is_well()
        before = memory(server)

        def one(number: int) -> None:
            with server.client() as client:
                while True:
                    answer = client.post("/api/detect", files=form((f"{number}.jpg", content)))
                    statuses[answer.status_code] += 1
                    if answer.status_code != 429:
                        break
                    time.sleep(min(20, int(answer.headers["Retry-After"])))

        peaks, is_over = [0, 0], Event()

        def watch() -> None:
            while not is_over.wait(0.2):
                peaks[:] = map(max, peaks, memory(server))

        watcher = Thread(target=watch)
        watcher.start()
        since = time.perf_counter()
        with ThreadPoolExecutor(args.clients) as pool:
            list(pool.map(one, range(args.clients)))
        seconds = time.perf_counter() - since
        is_over.set()
        watcher.join()
        is_empty = server.stored() == 0
    print(f"{args.clients} clients with an image of 1500 x 1000 px each, {len(content) >> 10} KiB, in {seconds:.0f} s")
    print(f"statuses: {dict(statuses)}; nothing is left on the disk: {is_empty}")
    for name, first, peak in zip(("server", "worker"), before, peaks, strict=True):
        print(f"{name}: {first >> 20} MiB after one image, at most {peak >> 20} MiB")


def memory(server: Server) -> tuple[int, int]:
    """The resident bytes of the server and of its worker."""
    return resident(server.process.pid), resident(server.worker())


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def schema(args: Flags) -> None:
    with running() as server, server.client() as client:
        seed = 0
        while (count := num_requests(client)).total() < args.requests:
            program = "from schemathesis.cli import schemathesis; schemathesis()"
            words = ["run", f"{server.url}/api/openapi.json", "--checks", CHECKS, "--phases", "coverage,fuzzing"]
            words += ["--max-examples", "400", "--seed", str(seed), "--exclude-path", "/api/jobs/{id}/events"]
            command = [sys.executable, "-c", program, *words]
            run = subprocess.run(command, capture_output=True, text=True, cwd=server.work)  # it keeps a cache there
            print(f"seed {seed}: exit status {run.returncode}, {num_requests(client).total() - count.total()} requests")
            if run.returncode:
                print(run.stdout[-3000:])
                sys.exit(1)
            seed += 1
        print(f"{count.total()} requests by status: {dict(sorted(count.items()))}")
        print(f"the server judges an image: {server.is_well()}")


def num_requests(client: httpx2.Client) -> Counter[str]:
    """The answered requests by status."""
    pattern = r'^rediffuse_requests_total\{.*status="(\d+)"\} (\S+)$'
    lines = re.findall(pattern, client.get("/metrics").text, re.MULTILINE)
    count = Counter[str]()
    for status, number in lines:
        count[status] += int(float(number))
    return count


def faults(args: Flags) -> None:
    with running() as server:
        assert server.is_well()
        for name, trial in {
            "upload of 2 GB with its length": lambda: huge(server, is_chunked=False),
            "upload of 2 GB in chunks": lambda: huge(server, is_chunked=True),
            "PNG that becomes 3.9 GB": lambda: status_of(server, "bomb.png", bomb()),
            "JPEG of which half is missing": lambda: status_of(server, "half.jpg", picture(kind="JPEG")[:10_000]),
            "client killed in its upload": lambda: killed_client(server),
            "worker killed while it judges": lambda: killed_worker(server),
        }.items():
            before, peak, is_over = resident(server.process.pid), [0, 0], Event()

            def watch(peak: list[int] = peak, is_over: Event = is_over) -> None:
                while not is_over.wait(0.05):
                    peak[:] = map(max, peak, (resident(server.process.pid), server.stored()))

            watcher = Thread(target=watch)
            watcher.start()
            result = trial()
            is_over.set()
            watcher.join()
            more = max(0, peak[0] - before) >> 20
            print(f"{name}: {result}; {more} MiB more memory, {peak[1] >> 20} MiB on the disk, then {server.stored()}")
            assert server.is_well()

    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL_DISK, SMALL_DISK))

    with running(limit=small_disk) as server:
        print(f"full disk: {status_of(server, 'a.png', picture((400, 300)))}; judges smaller files: {server.is_well()}")


def huge(server: Server, is_chunked: bool) -> str:
    """Send until the server answers or closes the connection."""
    link, head = connected(server, "/api/jobs")
    length = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {2 << 30}"
    part = PART
    block = bytes(1 << 20)
    if is_chunked:
        part, block = (f"{len(one):x}\r\n".encode() + one + b"\r\n" for one in (part, block))
    sent = 0
    with link:
        link.sendall(head + f"{length}\r\n\r\n".encode() + part)
        link.settimeout(0.001)
        answer = b""
        while not answer and sent < 2 << 30:
            with contextlib.suppress(TimeoutError):
                answer = link.recv(4096)
            if not answer:
                link.settimeout(60)
                link.sendall(block)
                link.settimeout(0.001)
                sent += len(block)
    return f"{answer.decode().splitlines()[0]} after {sent >> 20} MiB"


def connected(server: Server, path: str) -> tuple[socket.socket, bytes]:
    """A connection, and the first lines of an upload."""
    host, port = server.url.removeprefix("http://").split(":")
    head = f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    return socket.create_connection((host, int(port))), head.encode()


def status_of(server: Server, name: str, content: bytes) -> str:
    with server.client() as client:
        answer = client.post("/api/detect", files=form((name, content))).json()
    return f"{answer['status']} {answer['detail']}"


def killed_client(server: Server) -> str:
    """A process of its own that sends a part of an image, and is then killed."""
    process = os.fork()
    if process == 0:
        link, head = connected(server, "/api/detect")
        link.sendall(head + b"Content-Length: 9000000\r\n\r\n" + PART + bytes(4_000_000))
        time.sleep(60)
    while server.stored() < 3_900_000:
        time.sleep(0.02)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    since = time.perf_counter()
    while server.stored():
        time.sleep(0.01)
    return f"its file was deleted after {time.perf_counter() - since:.2f} s"


def killed_worker(server: Server) -> str:
    since = time.perf_counter()
    with server.client() as client:
        job = client.post("/api/jobs", files=form(*((f"{k}.png", picture()) for k in range(8)))).json()["id"]
        time.sleep(0.5)
        os.kill(server.worker(), signal.SIGKILL)
        with client.stream("GET", f"/api/jobs/{job}/events") as stream:
            *_, last = (json.loads(line[5:]) for line in stream.iter_lines() if line.startswith("data:"))
        client.delete(f"/api/jobs/{job}")
    judged = sum(one["verdict"]["decision"] is not None for one in last["files"])
    return f"{judged} of 8 images were judged after {time.perf_counter() - since:.1f} s"


def form(*named: tuple[str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", one) for one in named]


def picture(size: tuple[int, int] = (300, 200), kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def bomb() -> bytes:
    """A PNG file of 36,000 x 36,000 pixels that has 4 MB."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    side = 36_000
    packer = zlib.compressobj(9)
    rows = b"".join([*(packer.compress(bytes(1 + 3 * side)) for _ in range(side)), packer.flush()])
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


if __name__ == "__main__":
    main(read_flags(Flags))
