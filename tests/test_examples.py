"""The examples run without errors, and use public names only."""

import ast
import runpy
import sys
from pathlib import Path

import pytest

import rediffuse
from rediffuse.images.decode import decode
from rediffuse.images.find import find_images

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("sample.py", {"ddpm.png", "ddim.png", "dpm_solver.png"}),
        ("invert_and_interpolate.py", {"interpolation.png"}),
        ("frequency.py", {"bands.png"}),
        ("detect.py", {"sample.png"}),
        ("reconstruct.py", {"model", "reconstruction.png"}),
        ("train_and_upscale.py", {"photos", "run", "enlarged.png"}),
    ],
)
def test_example_runs(name: str, written: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few_steps = ["2"] if name.startswith("train") else []
    monkeypatch.setattr(sys, "argv", [name, str(tmp_path), *few_steps])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    assert {path.name for path in tmp_path.iterdir()} == written


def test_examples_have_at_most_sixty_lines() -> None:
    assert all(len(path.read_text().splitlines()) <= 60 for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_uses_public_names_alone(path: Path) -> None:
    used = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not [name.name for name in node.names if name.name.startswith("rediffuse.")]
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "rediffuse":
            assert node.module == "rediffuse"
            used |= {name.name for name in node.names}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "rediffuse":
            used.add(node.attr)
    assert used
    assert used <= set(rediffuse.__all__)


def test_demo_images_are_gathered_and_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["demo_images.py", str(tmp_path)])
    runpy.run_path(str(EXAMPLES / "demo_images.py"), run_name="__main__")
    names = [found.name for found in find_images([tmp_path])]
    assert sum(name.startswith("generated/seed-") for name in names) == 6
    assert any(name.startswith("generated/other/") for name in names) == (EXAMPLES.parents[1] / "shared").exists()
    assert sum(name.startswith("real/") for name in names) >= 6
    for found in find_images([tmp_path]):
        decode(found.path)
