"""What goes where: results to standard output, log records and bars to standard error, and how much of them."""

import json
import logging
import os
import pty
import subprocess
import sys
import termios
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rediffuse.cli.console import bars, log_to_stderr, track
from rediffuse.cli.main import main
from rediffuse.cli.result import Result

LOGGER = logging.getLogger("rediffuse.somewhere")


def log_one_of_each() -> None:
    LOGGER.debug("a step")
    LOGGER.info("a note")
    LOGGER.warning("a warning")
    LOGGER.error("an error")


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        ({"quiet": True}, ["rediffuse: an error"]),
        ({}, ["a note", "rediffuse: warning: a warning", "rediffuse: an error"]),
        (
            {"verbose": True},
            [
                "rediffuse.somewhere: a step",
                "a note",
                "rediffuse: warning: a warning",
                "rediffuse: an error",
            ],
        ),
    ],
    ids=["quiet", "default", "verbose"],
)
def test_how_much_is_shown(options: dict[str, bool], lines: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with log_to_stderr(**options):
        log_one_of_each()
    log_one_of_each()  # afterwards the library is as silent as before, but for what Python shows of any library
    assert capsys.readouterr().err.splitlines()[: len(lines)] == lines


def test_no_bar_is_drawn_where_standard_error_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with log_to_stderr(), bars() as progress:
        assert list(track("ab", 2)) == ["a", "b"]
        progress("reading", 1, 2)
    assert capsys.readouterr().err == ""


def on_terminal(*words: str) -> str:
    """What a call writes to a terminal that is its standard error."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    seen: list[bytes] = []

    def read() -> None:
        try:
            while part := os.read(ours, 4096):
                seen.append(part)
        except OSError:  # the other end was closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    call = [sys.executable, "-m", "rediffuse", *words]
    done = subprocess.run(call, stdout=subprocess.PIPE, stderr=theirs, text=True, check=False)
    os.close(theirs)
    reader.join()
    os.close(ours)
    assert done.returncode == 0, b"".join(seen)
    return b"".join(seen).decode()


def test_a_bar_is_drawn_on_a_terminal_unless_it_is_to_be_quiet(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    call = ("dire", str(tmp_path / "a.png"), "--device", "cpu", "--steps", "2", "--out")
    assert "1/1" in on_terminal(*call, str(tmp_path / "loud"))
    assert on_terminal(*call, str(tmp_path / "quiet"), "-q") == ""


def test_a_result_is_one_json_document_of_plain_values() -> None:
    result = Result(text="", record={"path": Path("a"), "values": (1, float("nan"), None), "inner": {3: True}})
    assert json.loads(result.json()) == {"path": "a", "values": [1, None, None], "inner": {"3": True}}


def test_models_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--cache", str(tmp_path), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["cache"] == str(tmp_path)
    assert [model["is_here"] for model in listed["models"]] == [True] + [False] * (len(listed["models"]) - 1)
