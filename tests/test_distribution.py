"""What is published: the wheel and the source distribution, and the wheel at work without the repository.

The wheel is installed into a new environment that finds the dependencies in the site-packages of this one, but not the
package itself. A folder named in a `.pth` file is added to sys.path; the `.pth` files in it, as of an editable
install, are not read.
"""

import ast
import csv
import itertools
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
import sklearn.datasets

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SOURCES = ("CHANGELOG.md", "LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "src", "tests")
PACKAGE = {
    path.relative_to(ROOT / "src").as_posix()
    for path in (ROOT / "src" / "rediffuse").rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
}


def run(*words: str | Path, cwd: Path) -> str:
    """What a program printed, once it has ended well. The sources of the repository are not on its path."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    ended = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    return ended.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("built")
    for name in SOURCES:  # a copy: setuptools writes beside the sources, and reads what it wrote there earlier
        source, copy = ROOT / name, folder / "copy" / name
        if source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            copy.parent.mkdir(exist_ok=True)
            shutil.copy(source, copy)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", folder / "copy", cwd=folder)
    return folder / "dist"


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment that holds the wheel."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, symlinks=True)
    [wheel] = built.glob("*.whl")
    pip = (sys.executable, "-m", "pip", "--python", folder / "bin" / "python")
    run(*pip, "install", "--quiet", "--no-index", "--no-deps", "--no-compile", wheel, cwd=folder)
    [site_packages] = folder.glob("lib/python*/site-packages")
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def test_both_distributions_pass_twine_check(built: Path) -> None:
    report = run(sys.executable, "-m", "twine", "--no-color", "check", "--strict", *built.iterdir(), cwd=built)
    assert report.count("PASSED") == 2


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(built: Path) -> None:
    [wheel] = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in names if ".dist-info/" not in name} == PACKAGE
    assert {"rediffuse/py.typed", "rediffuse/weights/model.safetensors"} <= PACKAGE


def test_the_source_distribution_holds_the_package_and_no_tests(built: Path) -> None:
    [archive] = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {member.name.partition("/")[2] for member in opened.getmembers() if member.isfile()}
    wanted = {f"src/{name}" for name in PACKAGE} | {*SOURCES} - {"src", "tests"}
    generated = {name for name in names if ".egg-info/" in name} | {"PKG-INFO", "setup.cfg"}
    assert names - generated == wanted


def test_the_installed_program_judges_a_photograph_without_the_repository(installed: Path, tmp_path: Path) -> None:
    shutil.copy(sklearn.datasets.load_sample_images().filenames[0], tmp_path / "china.jpg")
    program = installed / "rediffuse"
    where = run(installed / "python", "-c", "import rediffuse; print(rediffuse.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)
    run(program, "detect", "china.jpg", "--out", "verdicts.csv", "--evidence", "evidence", cwd=tmp_path)
    with (tmp_path / "verdicts.csv").open(newline="") as table:
        [row] = csv.DictReader(table)
    assert row["decision"] in {"real", "generated", "unsure"}
    assert 0 <= float(row["probability"]) <= 1
    assert (tmp_path / "evidence" / "index.html").is_file()
    assert run(program, "--version", cwd=tmp_path) == f"rediffuse {PROJECT['version']}\n"


def test_the_package_imports_declared_dependencies_alone() -> None:
    imported = set()
    for name in PACKAGE:
        if name.endswith(".py"):
            for node in ast.walk(ast.parse((ROOT / "src" / name).read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    imported.add(node.module.partition(".")[0])
    foreign = imported - sys.stdlib_module_names - {"rediffuse"}
    provided = {"triton"}  # a part of torch's builds for GPUs; without it torch's own kernels are used
    extras = (PROJECT["optional-dependencies"][name] for name in ("heif", "diffusers", "ray", "web"))
    for requirement in itertools.chain(PROJECT["dependencies"], *extras):
        declared = distribution(re.split(r"[^\w.-]", requirement)[0])
        listed = declared.read_text("top_level.txt")
        provided |= (
            set(listed.split()) if listed else {path.parts[0].removesuffix(".py") for path in declared.files or []}
        )
    assert foreign <= provided
