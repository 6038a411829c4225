"""The short form of benchmarks/faults.py: every command, and every fault with one of them."""

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parents[1] / "benchmarks" / "faults.py"
FAULTLESS = ("half-written", "not resumed", "different", "partial left", "traces", "mixed")


def test_nothing_is_lost_half_written_or_mixed(tmp_path: Path) -> None:
    # About 25 processes of less than a second each, after the import of everything.
    results, environment = tmp_path / "results.jsonl", {**os.environ, "OMP_NUM_THREADS": "1"}
    for choice in (["--faults", "SIGKILL"], ["--commands", "dire", "train diffusion"]):
        command = [sys.executable, PROGRAM, "--trials", "1", "--results", results, *choice]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in ran.stdout.splitlines())
    cells = [dict(zip(header, row, strict=True)) for row in rows]
    assert len({row["command"] for row in cells}) == 8
    assert len({row["fault"] for row in cells}) == (8 if not ran.stderr else 6)
    for row in cells:
        assert [row[name] for name in FAULTLESS] == ["0"] * len(FAULTLESS), row
