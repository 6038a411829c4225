"""Shared by all tests: the folders beside the repository, a server, and the number of threads per test process."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from file_server import FileServer, serve

torch.set_num_threads(min(2, torch.get_num_threads()))
settings.register_profile("rediffuse", deadline=None)  # on a busy machine a test may be slow without an error
settings.load_profile("rediffuse")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the repository; without it the tests that need it are skipped."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"{folder.name}/ is not beside the repository")
    return folder


@pytest.fixture(scope="session")
def clothing(shared: Path) -> Path:
    """3,781 photographs of clothing (CC0) as 64 px PNGs in train/validation/test, and 40 originals in photos/."""
    return shared / "data" / "clothing"


@pytest.fixture
def server() -> Iterator[FileServer]:
    """An HTTP server on this machine; tests set its `content`."""
    with serve() as server:
        yield server
