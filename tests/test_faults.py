"""The short form of benchmarks/faults.py: processes that are killed, terminated, short of disk, or two at a time."""

import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parents[1] / "benchmarks" / "faults.py"


def test_nothing_is_lost_half_written_or_mixed() -> None:
    # A dozen processes of about a second each.
    ran = subprocess.run(
        [sys.executable, PROGRAM, "--kills", "2", "--commands", "sample"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in ran.stdout.splitlines())
    assert len(rows) == 4
    first = header.index("half-written")
    for row in rows:
        assert row[first:] == ["0"] * (len(header) - first), row
