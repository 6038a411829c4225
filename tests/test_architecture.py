"""The architecture: imports go down only, packages hold no code, and `--help` loads no torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import rediffuse

ROOT = Path(rediffuse.__file__).parent
FOUNDATION = (
    "errors",
    "records",
    "files",
    "stores",
    "journal",
    "progress",
    "threads",
    "allocator",
    "transfer",
    "cluster",
)
"""The parts of the first layer are single files, which may import each other."""
LAYERS = (
    {*FOUNDATION},
    {"diffusion", "models", "images"},
    {"zoo"},
    {"dire", "sampling", "evaluation"},
    {"detection"},
    {"training", "report"},
    {"bench", "web"},
    {"compat", "cli"},
)
"""A part imports only itself and earlier layers, so parts of one layer do not import each other."""
COMPAT_USES = {"diffusion", "models", "images", "training", "compat", *FOUNDATION}
"""The layers that `compat` may import."""

MODULES = sorted(path for path in ROOT.rglob("*.py"))
PACKAGES = [path for path in MODULES if path.name == "__init__.py" and path.parent not in (ROOT, ROOT / "compat")]
"""Packages without code. `rediffuse` and `rediffuse.compat` are not among them: they define public names."""
COMMANDS = [path for path in MODULES if path.parent == ROOT / "cli"]


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part(module: str) -> str:
    """`diffusion` of `rediffuse.diffusion.trajectory`; empty for the package itself."""
    return module.split(".")[1] if "." in module else ""


@cache
def layer(name: str) -> int:
    places = [place for place, names in enumerate(LAYERS) if name in names]
    assert places, f"{name} has no layer: say in LAYERS where it belongs"
    return places[0]


def imported(path: Path) -> Iterator[str]:
    """Every module of ours that a file imports anywhere in it, by its full name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.split(".")[0] == "rediffuse")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{dotted(path)} imports relatively: name the module in full"
            if node.module == "rediffuse":
                yield from (f"rediffuse.{name.name}" for name in node.names)
            elif node.module and node.module.startswith("rediffuse."):
                yield node.module


def may_use(user: str, used: str) -> bool:
    if user == "compat":
        return used in COMPAT_USES
    if user in FOUNDATION:
        return used in FOUNDATION
    return user == used or layer(used) < layer(user)


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_imports_go_down_only(path: Path) -> None:
    user = part(dotted(path))
    if user in ("", "__main__"):  # the top-level modules
        return
    wrong = [module for module in imported(path) if not may_use(user, part(module))]
    assert not wrong, f"{dotted(path)} must not import {wrong}"


def test_nothing_outside_compat_knows_compat() -> None:
    users = {part(dotted(path)) for path in MODULES if any(part(module) == "compat" for module in imported(path))}
    assert users <= {"compat"}


def test_the_library_prints_nothing_and_draws_no_bar() -> None:
    library = [path for path in MODULES if part(dotted(path)) not in ("cli", "compat")]
    printing = {
        dotted(path)
        for path in library
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print")
        or (isinstance(node, ast.ImportFrom) and node.module == "tqdm")
        or (isinstance(node, ast.Import) and any(name.name == "tqdm" for name in node.names))
    }
    assert not printing


@pytest.mark.parametrize("path", PACKAGES, ids=dotted)
def test_a_package_file_holds_its_docstring_alone(path: Path) -> None:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    assert len(body) == 1
    assert isinstance(body[0], ast.Expr)
    assert isinstance(body[0].value, ast.Constant)


@pytest.mark.parametrize("heavy", ["torch", "matplotlib", "sklearn", "pyarrow", "accelerate", "ray"])
def test_the_package_and_its_commands_load_nothing_heavy(heavy: str) -> None:
    modules = ["rediffuse", *map(dotted, COMMANDS)]
    assert heavy not in loaded_by(tuple(modules))


def test_files_become_pixels_without_torch() -> None:
    others = ("tensors", "original")  # which make tensors of them, and show them
    pixels = [dotted(path) for path in MODULES if path.parent == ROOT / "images" and path.stem not in others]
    assert "torch" not in loaded_by(tuple(pixels))


@cache
def loaded_by(modules: tuple[str, ...]) -> frozenset[str]:
    """The top-level names in sys.modules after a fresh interpreter has imported `modules`."""
    program = f"import sys, {', '.join(modules)}; print(*{{name.split('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return frozenset(run.stdout.split())


@pytest.mark.parametrize("path", sorted((ROOT / "diffusion" / "solvers").glob("[a-z]*.py")), ids=dotted)
def test_every_sampler_can_be_imported_first(path: Path) -> None:
    assert "rediffuse" in loaded_by((dotted(path),))
