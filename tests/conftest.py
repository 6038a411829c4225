"""What tests share: the folders beside the repository, a server, and one thread per test process."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from file_server import FileServer, serve

torch.set_num_threads(2)
settings.register_profile("rediffuse", deadline=None)  # a loaded machine is no fault of the code
settings.load_profile("rediffuse")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the repository; tests that need it are skipped without it."""
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
    """Serves whatever `content` it is given."""
    with serve() as server:
        yield server
