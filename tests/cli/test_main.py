"""The command line as a whole: finding commands, help without torch, errors in one line."""

import subprocess
import sys

import pytest

from rediffuse.cli import main as cli
from rediffuse.errors import ConfigError, FetchError

WITHOUT_TORCH = """
import sys
from rediffuse.cli.main import main
try:
    status = main({words!r})
except SystemExit as end:  # tyro ends the process itself after help
    status = end.code
loaded = sorted({{"torch", "numpy", "matplotlib", "sklearn", "pyarrow"}} & set(sys.modules))
sys.exit(f"help loaded {{loaded}}" if loaded else status)
"""

NAMES = ", ".join(dict.fromkeys(name.split()[0] for name in cli.COMMANDS))
TRAINED = [name.removeprefix("train ") for name in cli.COMMANDS if name.startswith("train ")]
HELP = [["--help"], ["--version"], ["train", "--help"], *([*name.split(), "--help"] for name in cli.COMMANDS)]


@pytest.mark.parametrize("words", HELP, ids=" ".join)
def test_help_needs_no_heavy_library(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH.format(words=words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "rediffuse" in done.stdout


def test_every_command_is_in_the_overview(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed and command.summary in printed for name, command in cli.COMMANDS.items())


def test_no_command_shows_the_overview_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["dectect"], f"dectect is not a command ({NAMES}); did you mean detect?"),
        (
            ["train", "difusion"],
            f"train difusion is not a command ({', '.join(f'train {name}' for name in TRAINED)}); "
            "did you mean train diffusion?",
        ),
        (["zzz"], f"zzz is not a command ({NAMES})"),
        (["train"], f"train needs one of {', '.join(TRAINED)} after it; `rediffuse train --help` explains them"),
    ],
)
def test_a_misspelt_command_is_one_line_with_the_nearest_match(
    words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 2
    assert capsys.readouterr().err == f"rediffuse: {expected}\n"


@pytest.mark.parametrize(
    ("raised", "status", "line"),
    [
        (ConfigError("steps=0: at least 1 is needed"), 2, "rediffuse: steps=0: at least 1 is needed\n"),
        (FetchError("no network"), 1, "rediffuse: no network\n"),
        (KeyboardInterrupt(), 130, "rediffuse: interrupted\n"),
    ],
)
def test_what_a_command_raises_becomes_one_line_and_a_status(
    raised: BaseException, status: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(words: list[str]) -> int:
        raise raised

    monkeypatch.setattr(cli, "_dispatch", command)
    assert cli.main(["detect"]) == status
    assert capsys.readouterr().err == line


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["train", "diffusion", "--data", "d", "--out", "o", "--batch-size", "0"],
            "batch_size=0: at least 1 is needed",
        ),
        (
            ["train", "superres", "--data", "d", "--out", "o", "--small-size", "64"],
            "small_size=64: from 1 up to, not including, image_size=64 is allowed",
        ),
    ],
)
def test_a_flag_outside_what_is_allowed_is_one_line(
    words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 2
    assert capsys.readouterr().err == f"rediffuse: {line}\n"


def test_a_reader_that_goes_away_is_no_error() -> None:
    line = f"{sys.executable} -m rediffuse --help | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", f"sleep 0.2; {line}"], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode in (0, 141)  # 0 where the pipe's buffer took it all before its reader left


def test_an_unknown_flag_is_refused_with_status_2() -> None:
    words = [sys.executable, "-m", "rediffuse", "detect", "x.png", "--evidense", "e"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "evidence" in done.stderr
