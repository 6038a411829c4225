"""The tools around the package agree: the targets of make, the commit hooks, the hosted tests."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def lines_of(target: str) -> list[str]:
    """The commands of a target of the Makefile, without make's own prefix."""
    [recipe] = re.findall(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    return [line.strip().replace("$(BIN)", ".venv/bin") for line in recipe.splitlines()]


def test_make_help_describes_every_target() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    [targets] = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    described = re.findall(r"^make (\w+) +\S", shown, re.MULTILINE)
    assert described == [target for target in targets.split() if target != "help"]


def test_the_commit_hooks_are_valid_and_run_the_linters_of_make_lint() -> None:
    path = ROOT / ".pre-commit-config.yaml"
    subprocess.run([sys.executable, "-m", "pre_commit", "validate-config", path], check=True)
    [repository] = yaml.safe_load(path.read_text(encoding="utf-8"))["repos"]
    commands = [hook["entry"].removesuffix(" --force-exclude") for hook in repository["hooks"]]
    assert commands == lines_of("lint")


def test_the_hosted_tests_run_make_test_on_the_first_and_the_last_supported_python() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8"))
    job = workflow["jobs"]["test"]
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["classifiers"]
    prefix = "Programming Language :: Python :: "
    supported = [line.removeprefix(prefix) for line in classifiers if line.startswith(prefix)]
    assert job["strategy"]["matrix"]["python"] == [supported[0], supported[-1]]
    assert "make test PYTHON=python" in [step.get("run") for step in job["steps"]]
