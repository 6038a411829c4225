"""`rediffuse models`, through the command itself."""

import subprocess
import sys
from pathlib import Path

import pytest

from rediffuse.cli.main import main
from rediffuse.zoo.published import FEATURE_NETWORKS, PUBLISHED


def test_the_list_has_every_name_and_address(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--cache", str(tmp_path)]) == 0
    rows = capsys.readouterr().out.splitlines()
    published = [*PUBLISHED.values(), *FEATURE_NETWORKS.values()]
    assert [row.split()[0] for row in rows[1:18]] == ["default", *(file.name for file in published)]
    assert [row.split()[-1] for row in rows[2:18]] == [file.address for file in published]


def test_fetching_an_unknown_name_shows_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "fetch", "lsun_ct"]) == 2
    assert capsys.readouterr().err == (
        "rediffuse: lsun_ct: there is no published file of this name; did you mean lsun_cat?\n"
    )


def test_a_checksum_that_is_none_or_not_the_listed_one_downloads_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["models", "fetch", "256x256_diffusion_uncond", "--cache", str(tmp_path), "--sha256"]
    for given, line in (
        ("0" * 63, "64 hexadecimal digits are needed"),
        ("0" * 64, "the list of published files has a37c"),
    ):
        assert main([*words, given]) == 2
        assert line in capsys.readouterr().err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_the_default_needs_no_fetching(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "fetch", "default"]) == 0
    assert "is part of this installation" in capsys.readouterr().out


def test_listing_models_does_not_import_torch(tmp_path: Path) -> None:
    program = (
        f"import sys; from rediffuse.cli.main import main; main(['models', '--cache', {str(tmp_path)!r}]);"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True).returncode == 0
