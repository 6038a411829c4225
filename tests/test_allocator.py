"""That a process keeps freed memory: the pages are counted that the system hands out for tensors."""

import platform
import subprocess
import sys

import pytest

COUNT = """
import resource, torch
for _ in range(30):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16 << 20)  # 64 MiB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages_of_the_last_tensor(program: str) -> int:
    run = subprocess.run([sys.executable, "-c", program + COUNT], check=True, capture_output=True, text=True)
    return int(run.stdout.splitlines()[-1])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these options")
@pytest.mark.parametrize(
    "program",
    [
        "import rediffuse; rediffuse.keep_freed_memory()",
        "from rediffuse.cli.main import main; main(['models', '--quiet'])",
    ],
    ids=["function", "command"],
)
def test_the_memory_of_freed_tensors_is_used_again_after(program: str) -> None:
    """A tensor has 16,384 pages, or 32 where the system makes them large."""
    assert 4 * pages_of_the_last_tensor(program) < pages_of_the_last_tensor("")
