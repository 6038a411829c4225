"""`rediffuse models`, through the command itself."""

import subprocess
import sys
from pathlib import Path

import pytest

from rediffuse.cli.main import main
from rediffuse.zoo.published import PUBLISHED


def test_the_list_has_every_name_and_address(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--cache", str(tmp_path)]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows[1:17]] == ["default", *PUBLISHED]
    assert [row.split()[-1] for row in rows[2:17]] == [model.address for model in PUBLISHED.values()]


def test_fetching_an_unknown_name_shows_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "fetch", "lsun_ct"]) == 2
    assert capsys.readouterr().err == ("rediffuse: lsun_ct: no published model has this name; did you mean lsun_cat?\n")


def test_the_default_needs_no_fetching(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "fetch", "default"]) == 0
    assert "is part of this installation" in capsys.readouterr().out


def test_listing_models_does_not_import_torch(tmp_path: Path) -> None:
    program = (
        f"import sys; from rediffuse.cli.main import main; main(['models', '--cache', {str(tmp_path)!r}]);"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True).returncode == 0
