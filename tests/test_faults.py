"""The short form of benchmarks/faults.py: processes that are killed, terminated, short of disk, or two at a time."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "benchmarks" / "faults.py"


@pytest.mark.parametrize("command", ["sample", "train diffusion"])
def test_nothing_is_lost_half_written_or_mixed(command: str) -> None:
    # Several processes of a few seconds each.
    ran = subprocess.run(
        [sys.executable, PROGRAM, "--kills", "2", "--commands", command], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in ran.stdout.splitlines())
    assert len(rows) == 4
    first = header.index("half-written")
    for row in rows:
        assert row[first:] == ["0"] * (len(header) - first), row
