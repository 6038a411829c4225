"""The notebook examples/tour.ipynb runs, and the pictures that it is kept with are those of its code."""

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import rediffuse

TOUR = Path(__file__).parents[1] / "examples" / "tour.ipynb"


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def shown(notebook: nbformat.NotebookNode) -> list[list[str]]:
    """For each cell of code, what kinds of output follow each other; a kernel may send what is printed in parts."""
    cells = (cell for cell in notebook.cells if cell.cell_type == "code")
    kinds = [[kind for one in cell.outputs for kind in one.get("data", {one.output_type: ""})] for cell in cells]
    return [[kind for kind, _ in itertools.groupby(cell)] for cell in kinds]


def printed(notebook: nbformat.NotebookNode) -> str:
    """What all cells print."""
    cells = (cell for cell in notebook.cells if cell.cell_type == "code")
    return "".join(output.text for cell in cells for output in cell.outputs if output.output_type == "stream")


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> nbformat.NotebookNode:
    """The notebook, run anew in a kernel."""
    folder = tmp_path_factory.mktemp("tour")
    words = (sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--output-dir", folder, TOUR)
    environment = os.environ | {"IPYTHONDIR": str(folder / "ipython"), "JUPYTER_RUNTIME_DIR": str(folder / "runtime")}
    ended = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return read(folder / TOUR.name)


def test_the_tour_runs_and_shows_what_it_is_kept_with(executed: nbformat.NotebookNode) -> None:
    assert shown(executed) == shown(read(TOUR))
    pictures = [kind for kinds in shown(executed) for kind in kinds if kind == "image/png"]
    assert len(pictures) == 5


def test_the_tour_judges_photographs_and_samples_as_it_is_kept(executed: nbformat.NotebookNode) -> None:
    verdict = re.compile(r"^(.+): (real|generated|unsure)", re.MULTILINE)
    assert verdict.findall(printed(executed)) == verdict.findall(printed(read(TOUR)))
    assert len(verdict.findall(printed(executed))) == 8


def test_the_tour_uses_public_names_alone() -> None:
    code = "\n".join(cell.source for cell in read(TOUR).cells if cell.cell_type == "code")
    assert set(re.findall(r"\brediffuse\.(\w+)", code)) <= set(rediffuse.__all__)
    assert "from rediffuse" not in code


def test_the_tour_is_small_and_holds_no_traces_of_the_run_that_filled_it() -> None:
    assert TOUR.stat().st_size < 300_000
    assert set(read(TOUR).metadata) == {"kernelspec", "language_info"}
    assert all("execution" not in cell.metadata for cell in read(TOUR).cells)
