"""`rediffuse --print-completion`: real shells source the script and are asked what they would complete."""

import shutil
import subprocess
from pathlib import Path

import pytest

from rediffuse.cli.main import SHELLS, main

ASK_BASH = """
source {script}
COMP_WORDS=({words} "{prefix}"); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
"$(complete -p rediffuse | sed 's/.*-F \\([^ ]*\\).*/\\1/')" rediffuse "{prefix}" ""
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("completion")
    for shell in SHELLS:
        with pytest.MonkeyPatch.context() as patch, (folder / shell).open("w") as file:
            patch.setattr("sys.stdout", file)
            assert main(["--print-completion", shell]) == 0
    return {shell: folder / shell for shell in SHELLS}


def shell(name: str, *words: str) -> str:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    done = subprocess.run([name, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("words", "prefix", "expected"),
    [
        ("rediffuse", "de", ["detect"]),
        ("rediffuse", "tr", ["train"]),
        ("rediffuse train", "", ["diffusion", "classifier", "superres", "detector"]),
        ("rediffuse models", "f", ["fetch"]),
        ("rediffuse sample", "--se", ["--seeds"]),
        ("rediffuse train diffusion", "--num-b", ["--num-bands"]),
        ("rediffuse detect", "--js", ["--json"]),
        ("rediffuse dire --grid", "", ["compat", "aligned"]),
    ],
)
def test_bash_completes_commands_flags_and_choices(
    words: str, prefix: str, expected: list[str], scripts: dict[str, Path]
) -> None:
    program = ASK_BASH.format(script=scripts["bash"], words=words, prefix=prefix)
    found = shell("bash", "-c", program).split()
    assert set(expected) <= set(found)
    assert all(word.startswith(prefix) for word in found)


def test_bash_completes_files(scripts: dict[str, Path]) -> None:
    folder = scripts["bash"].parent
    program = ASK_BASH.format(script=scripts["bash"], words="rediffuse sample --out", prefix=f"{folder}/ba")
    assert shell("bash", "-c", program).split() == [f"{folder}/bash"]


def test_zsh_accepts_the_script_and_defines_its_function(scripts: dict[str, Path]) -> None:
    shell("zsh", "-n", str(scripts["zsh"]))
    assert scripts["zsh"].read_text().startswith("#compdef rediffuse")


def test_fish_completes_commands_and_flags(scripts: dict[str, Path]) -> None:
    for line, expected in (("rediffuse sam", "sample"), ("rediffuse sample --see", "--seeds")):
        found = shell("fish", "--no-config", "-c", f"source {scripts['fish']}; complete -C '{line}'")
        assert expected in [candidate.split("\t")[0] for candidate in found.splitlines()]
