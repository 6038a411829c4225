"""The command line as a whole: finding commands, help without torch, errors in one line."""

import subprocess
import sys

import pytest

from rediffuse.cli import main as cli
from rediffuse.cli.flags import flags_of
from rediffuse.errors import ConfigError, FetchError

WITHOUT_TORCH = """
import sys
from rediffuse.cli.main import main
status = main({words!r})
loaded = sorted({{"torch", "numpy", "matplotlib", "sklearn", "pyarrow"}} & set(sys.modules))
sys.exit(f"help loaded {{loaded}}" if loaded else status)
"""

NAMES = ", ".join(dict.fromkeys(name.split()[0] for name in cli.COMMANDS))
TRAINED = [name.removeprefix("train ") for name in cli.COMMANDS if name.startswith("train ")]
HELP = [
    *(["--help"], ["--version"], ["train", "--help"], ["--print-completion", "bash"]),
    *([*name.split(), "--help"] for name in cli.COMMANDS),
]


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
        (["train"], f"train needs one of {', '.join(TRAINED)} after it; see `rediffuse train --help`"),
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
            "small_size=64: at least 1 and less than image_size=64 is needed",
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


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("sample --setps 3", "--setps is not a flag of rediffuse sample; did you mean --steps?"),
        ("sample --no-clp --out o", "--no-clp is not a flag of rediffuse sample; did you mean --no-clip?"),
        ("detect x.png --evidense=e", "--evidense is not a flag of rediffuse detect; did you mean --evidence?"),
        ("sample --steps abc --out o", "--steps abc: a whole number is needed"),
        ("sample --eta=much --out o", "--eta much: a number is needed"),
        ("sample --out", "--out: a value is needed after it"),
        ("dire a --grid exact --out o", "--grid exact: compat, aligned are allowed"),
        ("dire a --crop centre --out o", "crop=centre: center, squash, windows:N are allowed; did you mean center?"),
        (
            "train detector --data d --out o --crop windows:2 --features map",
            "crop=windows:2: features=map takes one map per image; center, squash are allowed",
        ),
        (
            "train detector --data d --out o --features bands maps",
            "--features maps: bands, bands_mean, bands_ycc, bands_image, views, lpips, map_energies, image, image_ycc, "
            "map, map_8bit, map_bands, pixels are allowed; did you mean map?",
        ),
        ("sample", "--out PATH is required; see `rediffuse sample --help`"),
        ("upscale", "PATH ..., --model MODEL, --out PATH are required; see `rediffuse upscale --help`"),
        ("info a b", "b: rediffuse info takes no further argument; see `rediffuse info --help`"),
        ("info a -q -v", "--quiet and --verbose: only one of them can be given"),
        (
            "--jsn",
            "--jsn: a command is needed first; flags without a command are --help, --version, --print-completion",
        ),
        ("--print-completion zhs", "--print-completion zhs: one of bash, zsh, fish is needed; did you mean zsh?"),
        ("train diffusion --recipe", "--recipe: a value is needed after it"),
    ],
)
def test_a_usage_error_is_one_line_with_the_nearest_match(
    words: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words.split()) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", f"rediffuse: {line}\n")


def test_every_command_has_the_common_flags_and_says_what_is_required_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in cli.COMMANDS:
        assert cli.main([*name.split(), "--help"]) == 0
        printed = capsys.readouterr().out
        assert printed.startswith(f"usage: rediffuse {name} ")
        assert all(flag in printed for flag in ("-q, --quiet", "-v, --verbose", "--json"))
        assert "Required:" not in printed[printed.find("Output:") :]


def test_the_flags_of_a_normal_training_come_first(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert cli.main(["train", "diffusion", "--help"]) == 0
    first = capsys.readouterr().out.splitlines()[:36]
    for flag in ("--data", "--out", "--recipe", "--dry-run", "--num-steps", "--batch-size", "--device", "--init"):
        assert any(line.startswith(f"  {flag} ") or line == f"  {flag}" for line in first)


def test_every_name_in_a_group_of_help_is_a_flag_somewhere() -> None:
    titles: dict[int, set[str]] = {}
    known: dict[int, set[str]] = {}
    for name in cli.COMMANDS:
        module, kind = cli._load(name)
        default = module.defaults(["--gates"]) if hasattr(module, "defaults") else None
        # Trainings share their groups, and not every one of them has every flag.
        titles[id(kind.groups)] = {flag for names in kind.groups.values() for flag in names}
        known.setdefault(id(kind.groups), set()).update(flag.name for flag in flags_of(kind, default))
    assert all(titles[place] <= known[place] for place in titles)
