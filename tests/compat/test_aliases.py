"""The old names give the adapter's modules; replacements are used only for packages that are not installed."""

import subprocess
import sys

import pytest

from rediffuse.compat import blobfile
from rediffuse.compat.launch import Launch
from rediffuse.errors import ConfigError, InputError

PROGRAM = """
import importlib.util, sys
import rediffuse.compat
rediffuse.compat.install()
rediffuse.compat.install()
assert "torch" not in sys.modules
from guided_diffusion import dist_util, logger
import guided_diffusion.unet
from guided_diffusion.script_util import NUM_CLASSES
import rediffuse.compat.guided_diffusion.unet as own
assert guided_diffusion.unet is own is sys.modules["guided_diffusion.unet"]
assert own.__spec__.name == own.__name__ == "rediffuse.compat.guided_diffusion.unet"
assert importlib.util.find_spec("guided_diffusion.no_such_module") is None
from mpi4py import MPI
import mpi4py.MPI, blobfile
assert mpi4py.MPI is MPI and MPI.COMM_WORLD.Get_size() == 1
assert MPI.COMM_WORLD.bcast("x") == "x" and MPI.COMM_WORLD.allreduce(2, MPI.SUM) == 2
"""


def test_every_way_to_import_an_old_name_gives_our_module() -> None:
    finished = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr


def test_another_package_of_the_name_is_not_replaced_behind_its_back() -> None:
    program = (
        "import sys, types; sys.modules['guided_diffusion'] = types.ModuleType('guided_diffusion');"
        "sys.modules['guided_diffusion'].__file__ = 'theirs.py';"
        "import rediffuse.compat; rediffuse.compat.install()"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "guided_diffusion is already imported, from theirs.py" in finished.stderr


def test_a_launch_is_read_from_the_variables_of_torchrun_and_the_old_logger() -> None:
    environment = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "OPENAI_LOGDIR": "a", "OPENAI_LOG_FORMAT": "csv"}
    launch = Launch.from_environment(environment)
    assert launch == Launch(rank=1, num_processes=2, local_rank=1, log_dir="a", log_formats=("csv",))
    assert Launch.from_environment({"OPENAI_LOGDIR": "", "WORLD_SIZE": ""}) == Launch()
    for wrong in ({"RANK": "x"}, {"RANK": "1"}):
        with pytest.raises(ConfigError, match="RANK="):
            Launch.from_environment(wrong)


@pytest.mark.parametrize("variable", ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"])
def test_several_processes_of_mpiexec_are_refused_with_the_line_of_torchrun(variable: str) -> None:
    with pytest.raises(ConfigError, match=f"^{variable}=2: .*torchrun --nproc-per-node 2 -m rediffuse.compat SCRIPT"):
        Launch.from_environment({variable: "2"})
    assert Launch.from_environment({variable: "1"}) == Launch()
    assert Launch.from_environment({variable: "2", "WORLD_SIZE": "2"}) == Launch(num_processes=2)


def test_clouds_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="gs://a/b: is not on this machine"):
        blobfile.BlobFile("gs://a/b", "rb")
