"""Two real servers: one as it is by default, and one with a token and a small disk."""

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from web.running import Running, save_weights, serve

TOKEN = "a-token-of-the-tests"
LARGEST_FILE = 200_000
"""The system refuses to let a file of the second server grow beyond this size in bytes, as a full disk does."""


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="session")
def site(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with two detectors."""
    folder = tmp_path_factory.mktemp("site")
    words = ("--detector", str(weights / "second"), "--folder", str(folder / "work"), "--max-files", "40")
    sizes = ("--max-file-bytes", "3000000", "--max-request-bytes", "20000000")
    with serve(weights, folder / "log", *words, *sizes) as run:
        yield run


@pytest.fixture(scope="session")
def guarded(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with a token, whose disk takes no large files."""

    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))

    folder = tmp_path_factory.mktemp("guarded")
    words = ("--host", "0.0.0.0", "--token", TOKEN, "--folder", str(folder / "work"))
    with serve(weights, folder / "log", *words, limit=small_disk) as run:
        yield run
