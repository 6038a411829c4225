"""The examples run."""

import runpy
import sys
from pathlib import Path

import pytest

from rediffuse.images.decode import decode
from rediffuse.images.find import find_images

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_demo_images_are_gathered_and_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["demo_images.py", str(tmp_path)])
    runpy.run_path(str(EXAMPLES / "demo_images.py"), run_name="__main__")
    names = [found.name for found in find_images([tmp_path])]
    assert sum(name.startswith("generated/") for name in names) == 6
    assert sum(name.startswith("real/") for name in names) >= 6
    for found in find_images([tmp_path]):
        decode(found.path)
