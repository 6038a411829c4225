"""The interface for programs, against real servers: verdicts, limits, faults, and the end."""

import json
import os
import signal
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from rediffuse.cli.main import main
from web.conftest import LARGEST_FILE, TOKEN
from web.running import Running, files, picture, serve


@pytest.fixture
def client(site: Running) -> Iterator[httpx2.Client]:
    with site.client() as client:
        yield client


def until_done(client: httpx2.Client, job: str) -> dict:
    """The last event of a job's stream."""
    status = {}
    with client.stream("GET", f"/api/jobs/{job}/events") as stream:
        for line in stream.iter_lines():
            if line.startswith("data:"):
                status = json.loads(line.removeprefix("data:"))
    return status


def is_problem(response: httpx2.Response, status: int, text: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert problem["title"]
    assert text in problem["detail"]


def folders(site: Running) -> set[str]:
    """The folders of the jobs on the disk of a server."""
    return {path.name for path in (site.log.parent / "work" / "jobs").iterdir()}


@pytest.fixture
def left(site: Running) -> Callable[[], set[str]]:
    """The folders of the jobs that a test has made, and that are still there."""
    before = folders(site)
    return lambda: folders(site) - before


def bomb() -> bytes:
    """A PNG of 64 kB that would become 4 GB."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 36_000, 36_000, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(64 << 20), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_the_server_gives_the_verdicts_tables_and_page_of_the_command(
    client: httpx2.Client, weights: Path, tmp_path: Path, left: Callable[[], set[str]]
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for seed in range(3):
        (images / f"{seed}.png").write_bytes(picture(seed))
    (images / "broken.png").write_text("no image")
    named = [(path.name, path.read_bytes()) for path in sorted(images.iterdir())]
    created = client.post("/api/jobs", files=files(*named))
    assert created.status_code == 202
    job = created.json()["id"]
    assert created.headers["Location"] == f"/api/jobs/{job}"
    status = until_done(client, job)
    assert status["state"] == "done"
    assert status["headline"] == "None of 4 images look generated; 3 could not be decided; 1 could not be judged"
    assert status == client.get(f"/api/jobs/{job}").json()

    flags = ["--model", weights, "--detector", weights / "detector", "--device", "cpu", "--out", tmp_path / "v.csv"]
    main(["detect", *map(str, [images, *flags, "--report", tmp_path / "v.html"])])
    table = client.get(f"/api/jobs/{job}/report", params={"format": "csv"})
    expected = (tmp_path / "v.csv").read_text().replace(f"{images}/", "")
    assert table.text.splitlines()[0] == expected.splitlines()[0]
    assert [line.split(",")[:2] for line in table.text.splitlines()] == [
        line.split(",")[:2] for line in expected.splitlines()
    ]
    page = client.get(f"/api/jobs/{job}/report")
    assert page.text.count("data:image/") == (tmp_path / "v.html").read_text().count("data:image/") == 9
    assert "attachment" in page.headers["Content-Disposition"]
    rows = client.get(f"/api/jobs/{job}/report", params={"format": "json"}).json()
    assert [row["file"] for row in rows] == ["0.png", "1.png", "2.png", "broken.png"]
    assert rows[3]["reason"].startswith("broken.png: is not an image")
    assert client.delete(f"/api/jobs/{job}").status_code == 204
    is_problem(client.get(f"/api/jobs/{job}"), 404, "no such job")
    assert not left()


def test_one_image_is_judged_at_once_and_nothing_is_kept(client: httpx2.Client, left: Callable[[], set[str]]) -> None:
    answer = client.post("/api/detect", files=files(("a.png", picture())))
    assert answer.status_code == 200
    assert (answer.json()["file"], answer.json()["decision"]) == ("a.png", "unsure")
    assert not left()


def test_clients_choose_among_the_detectors(client: httpx2.Client, weights: Path) -> None:
    models = client.get("/api/models").json()
    names = [one["name"] for one in models["detectors"]]
    assert names == [str(weights / "detector"), str(weights / "second")]
    assert [one["num_windows"] for one in models["detectors"]] == [None, 4]
    answer = client.post("/api/detect", files=files(("a.png", picture())), data={"detector": names[1]})
    assert answer.status_code == 200
    refused = client.post("/api/detect", files=files(("a.png", picture())), data={"detector": "/etc/passwd"})
    is_problem(refused, 422, "detector: '/etc/passwd' is none of")


def test_images_of_many_clients_are_judged_together(site: Running) -> None:
    def ask(seed: int) -> str:
        with site.client() as client:
            answer = client.post("/api/detect", files=files((f"{seed}.png", picture(seed))))
        return answer.json()["file"]

    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(ask, range(24))) == [f"{seed}.png" for seed in range(24)]


@pytest.mark.parametrize(
    ("request_of", "status", "text"),
    [
        ({"files": {"x": b"1"}}, 422, "'x': no field of that name"),
        ({"files": files(("", b""))}, 422, "no file was sent"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 422, "without a boundary"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=b"}}, 422, "not multipart"),
        ({"content": b"--b\r\n", "headers": {"Content-Type": "multipart/form-data; boundary=b"}}, 422, "its end"),
        ({"json": {}}, 415, "multipart/form-data is needed"),
        ({"files": files(*[(f"{n}", b"x") for n in range(41)])}, 413, "more than 40 files"),
        ({"files": files(("large.png", bytes(3_000_001)))}, 413, "large.png: more than 3000000 bytes"),
    ],
)
def test_a_wrong_upload_is_refused_in_one_line_and_leaves_nothing(
    client: httpx2.Client, request_of: dict, status: int, text: str, left: Callable[[], set[str]]
) -> None:
    is_problem(client.post("/api/jobs", **request_of), status, text)
    assert not left()


def test_an_image_that_cannot_be_judged_is_a_problem_with_its_name(client: httpx2.Client) -> None:
    truncated = picture(0, "JPEG", (300, 200))[:2000]
    is_problem(client.post("/api/detect", files=files(("a.jpg", truncated))), 422, "a.jpg: damaged or truncated")
    is_problem(client.post("/api/detect", files=files(("bomb.png", bomb()))), 422, "bomb.png: 36000x36000")
    two = files(("a.png", picture()), ("b.png", picture()))
    is_problem(client.post("/api/detect", files=two), 422, "2 files; send one")


def test_every_address_and_method_that_is_not_there_is_a_problem(client: httpx2.Client) -> None:
    is_problem(client.get("/api/nothing"), 404, "Not Found")
    is_problem(client.put("/api/jobs"), 405, "Method Not Allowed")
    is_problem(client.get("/api/jobs/../../etc/passwd"), 404, "Not Found")
    page = client.get("/jobs/nothing", headers={"Accept": "text/html"})
    assert page.status_code == 404
    assert "no such job" in page.text
    assert page.headers["Content-Type"].startswith("text/html")


def test_a_huge_request_is_refused_before_it_is_read(site: Running, left: Callable[[], set[str]]) -> None:
    host, port = site.url.removeprefix("http://").split(":")
    head = "POST /api/jobs HTTP/1.1\r\nHost: {}:{}\r\nContent-Type: multipart/form-data; boundary=b\r\n{}\r\n\r\n"
    with socket.create_connection((host, int(port))) as link:
        link.sendall(head.format(host, port, "Content-Length: 2147483648").encode())
        link.sendall(bytes(1 << 20))
        assert b"413" in link.recv(4096).splitlines()[0]
    with socket.create_connection((host, int(port))) as link:
        link.sendall(head.format(host, port, "Transfer-Encoding: chunked").encode())
        part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
        link.sendall(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        block = b"40000\r\n" + bytes(0x40000) + b"\r\n"
        for _ in range(20):  # 5 MiB: more than a file may have
            link.sendall(block)
        assert b"413" in link.recv(4096).splitlines()[0]
    assert not left()


def test_a_client_that_goes_away_frees_its_place(
    site: Running, client: httpx2.Client, left: Callable[[], set[str]]
) -> None:
    before = site.log.read_text().count("POST /api/detect: 400")
    host, port = site.url.removeprefix("http://").split(":")
    head = f"POST /api/detect HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n' + bytes(5000)
    with socket.create_connection((host, int(port))) as link:
        link.sendall(head.encode() + b"Content-Length: 90000\r\n\r\n" + part)
        until(lambda: len(left()) == 1)
    until(lambda: not left())
    waiting = client.post("/api/jobs", files=files(*[(f"{n}.png", picture(n)) for n in range(40)])).json()["id"]
    whole = part.replace(bytes(5000), picture()) + b"\r\n--b--\r\n"
    with socket.create_connection((host, int(port))) as link:
        link.sendall(head.encode() + f"Content-Length: {len(whole)}\r\n\r\n".encode() + whole)
        until(lambda: len(left()) == 2)
    until(lambda: len(left()) == 1)
    assert site.log.read_text().count("POST /api/detect: 400") == before + 2
    assert client.delete(f"/api/jobs/{waiting}").status_code == 204
    assert "rediffuse_waiting_files 0.0" in client.get("/metrics").text


def until(condition, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_worker_is_started_again_and_its_files_are_judged(site: Running, client: httpx2.Client) -> None:
    job = client.post("/api/jobs", files=files(*[(f"{n}.png", picture(n)) for n in range(8)])).json()["id"]
    os.kill(site.children()[0], signal.SIGKILL)
    is_down = client.get("/healthz")
    assert client.get("/api/models").status_code == 200
    status = until_done(client, job)
    assert is_down.status_code in (200, 503)
    assert [one["verdict"]["decision"] for one in status["files"]] == ["unsure"] * 8
    assert client.get("/healthz").json() == {"status": "ok"}
    assert "the worker ended (exit status -9)" in site.log.read_text()
    assert client.delete(f"/api/jobs/{job}").status_code == 204


def test_the_log_and_the_figures_hold_no_names_and_no_addresses_of_jobs(site: Running, client: httpx2.Client) -> None:
    job = client.post("/api/jobs", files=files(("secret-name.png", picture()))).json()["id"]
    until_done(client, job)
    client.get(f"/api/jobs/{job}", params={"secret": "secret-name"})
    client.delete(f"/api/jobs/{job}")
    for text in (site.log.read_text(), client.get("/metrics").text):
        assert "GET /api/jobs/{id}" in text or 'route="/api/jobs/{id}"' in text
        assert job not in text
        assert "secret-name" not in text


def test_a_full_disk_is_a_problem_and_the_server_goes_on(guarded: Running) -> None:
    with guarded.client(headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        large, before = picture(size=(400, 300)), folders(guarded)
        assert len(large) > LARGEST_FILE
        is_problem(client.post("/api/detect", files=files(("a.png", large))), 507, "could not keep the upload")
        assert client.post("/api/detect", files=files(("a.png", picture()))).status_code == 200
        assert folders(guarded) == before


def test_at_the_end_what_is_begun_is_finished_and_no_more_is_taken(weights: Path, tmp_path: Path) -> None:
    with serve(weights, tmp_path / "log", "--folder", str(tmp_path / "work")) as server, server.client() as client:
        job = client.post("/api/jobs", files=files(*[(f"{n}.png", picture(n)) for n in range(20)])).json()["id"]
        server.process.send_signal(signal.SIGTERM)
        until(lambda: "stopping" in server.log.read_text())
        is_problem(client.post("/api/detect", files=files(("a.png", picture()))), 503, "is being stopped")
        status = until_done(client, job)
        assert [one["verdict"]["decision"] for one in status["files"]] == ["unsure"] * 20
        assert server.process.wait(30) == 0
        assert not (tmp_path / "work").exists()
