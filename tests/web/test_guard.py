"""Who may use the server: the token, the name of the host, pages of other sites, and the headers of every answer."""

import pytest

from rediffuse.cli.main import main
from web.conftest import TOKEN
from web.running import Running, files, picture


def test_without_a_token_only_this_machine_may_be_listened_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REDIFFUSE_TOKEN", raising=False)
    assert main(["serve", "--host", "0.0.0.0"]) == 2
    assert "--host 0.0.0.0: others could use the server" in capsys.readouterr().err
    assert main(["serve", "--host", "0.0.0.0", "--token", "short"]) == 2
    assert "--token: at least 16" in capsys.readouterr().err
    assert main(["serve", "--max-files", "0"]) == 2
    assert "max_files=0: at least 1 is needed" in capsys.readouterr().err


def test_a_model_without_a_detector_and_a_port_in_use_are_errors_of_one_line(
    site: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    port = site.url.rpartition(":")[2]
    assert main(["serve", "--port", port]) == 2
    assert f"--host 127.0.0.1 --port {port}: cannot be used: Address already in use" in capsys.readouterr().err
    assert main(["serve", "--port", "0", "--detector", "missing"]) == 2
    assert "missing: no detector" in capsys.readouterr().err


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}, {"Cookie": f"rediffuse={TOKEN}"}],
)
def test_without_the_token_nothing_is_answered(guarded: Running, headers: dict[str, str]) -> None:
    with guarded.client(headers=headers) as client:
        for answer in (
            client.get("/api/models"),
            client.get("/metrics"),
            client.get("/api/openapi.json"),
            client.post("/api/detect", files=files(("a.png", picture()))),
        ):
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert answer.json()["title"] == "Unauthorized"
        assert client.get("/healthz").status_code == 200


def test_the_token_opens_the_interface_from_any_host_name(guarded: Running) -> None:
    with guarded.client(headers={"Authorization": f"Bearer {TOKEN}", "Host": "images.example"}) as client:
        assert client.get("/api/models").status_code == 200


def test_a_person_logs_in_with_a_cookie_that_is_not_the_token(guarded: Running) -> None:
    with guarded.client(headers={"Accept": "text/html"}) as client:
        assert client.get("/").headers["Location"] == "/login"
        wrong = client.post("/login", data={"token": "wrong"})
        assert wrong.status_code == 401
        assert "not the token" in wrong.text
        right = client.post("/login", data={"token": TOKEN})
        assert right.status_code == 303
        cookie = right.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert TOKEN not in cookie
        assert "Log out" in client.get("/").text
        assert client.post("/logout").headers["Location"] == "/login"
        assert client.get("/").headers["Location"] == "/login"


def test_a_server_without_a_token_answers_only_to_names_of_this_machine(site: Running) -> None:
    with site.client() as client:
        refused = client.get("/api/models", headers={"Host": "rebound.example"})
        assert refused.status_code == 421
        assert refused.json()["detail"] == "Host: one of 127.0.0.1, localhost, ::1 is needed"
        for name in ("localhost", "127.0.0.1:1", "[::1]:8000"):
            assert client.get("/api/models", headers={"Host": name}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://other.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({}, 200),
    ],
)
def test_pages_of_other_sites_cannot_send_images(site: Running, headers: dict[str, str], status: int) -> None:
    with site.client(headers=headers) as client:
        assert client.post("/api/detect", files=files(("a.png", picture()))).status_code == status
        own = client.post("/api/detect", files=files(("a.png", picture())), headers={"Origin": site.url})
        assert own.status_code == (403 if "Sec-Fetch-Site" in headers and status == 403 else 200)


def test_every_answer_has_the_headers_of_safety(site: Running) -> None:
    with site.client() as client:
        for path in ("/", "/api/models", "/nothing", "/healthz"):
            headers = client.get(path).headers
            assert headers["Content-Security-Policy"].startswith("default-src 'none'; ")
            assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
            assert "http" not in headers["Content-Security-Policy"]
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Cache-Control"] == "no-store"
            assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
            assert "server" not in headers
