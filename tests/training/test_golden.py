"""Runs of guided-diffusion, repeated with our trainer: in one batch, in microbatches, in two processes."""

from pathlib import Path

import pytest
from golden_training import CASES, assert_trajectory_is_guided_diffusions

from processes import torchrun


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("microbatch", [None, 3])
def test_trajectory_is_guided_diffusions(name: str, microbatch: int | None) -> None:
    assert_trajectory_is_guided_diffusions(name, microbatch)


def test_trajectory_in_two_processes_is_guided_diffusions() -> None:
    printed = torchrun(str(Path(__file__).with_name("golden_training.py")))
    assert all(f"2 trajectories by process {rank} of 2" in printed for rank in (0, 1))
