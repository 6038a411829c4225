"""The old packages' names as names of the adapter's modules, by way of Python's import system."""

import importlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from rediffuse.compat.launch import Launch, set_current
from rediffuse.errors import ConfigError

ADAPTED = "guided_diffusion"
STAND_INS = ("mpi4py", "blobfile")
"""What programs import beside it; provided where it is not installed."""


def install(environment: Mapping[str, str] | None = None) -> None:
    """Let `guided_diffusion` name `rediffuse.compat.guided_diffusion`, for the rest of the process.

    `mpi4py` and `blobfile` are provided for one machine where they are not installed. A second call changes no names.

    Args:
        environment: `os.environ`, where torchrun's variables and `OPENAI_LOGDIR` are to count (see `Launch`), as they
            do under `python -m rediffuse.compat`; without it this is a single process, as long as nobody said
            otherwise.

    Raises:
        ConfigError: another `guided_diffusion` was imported before, or the variables contradict each other.
    """
    imported = sys.modules.get(ADAPTED)
    if imported is not None and imported is not sys.modules.get(_real(ADAPTED)):
        raise ConfigError(f"{ADAPTED} is already imported, from {imported.__file__}: install before that")
    if environment is not None:
        set_current(Launch.from_environment(environment))
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        missing = [name for name in STAND_INS if importlib.util.find_spec(name) is None]
        # First, so before a package of the adapted name in the program's folder; and a stand-in's own folder is not
        # searched for a second copy of what is in it.
        sys.meta_path.insert(0, _Finder([ADAPTED, *missing]))


class _Finder(MetaPathFinder):
    """Finds packages, and what is in them, under `rediffuse.compat`."""

    def __init__(self, packages: Sequence[str]) -> None:
        self.packages = packages

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] not in self.packages:
            return None
        real = importlib.util.find_spec(_real(fullname))
        if real is None:
            return None
        return ModuleSpec(fullname, _Alias(), is_package=real.submodule_search_locations is not None)


class _Alias(Loader):
    """Puts the adapter's own module under another name: one module, however it was imported."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(_real(spec.name))
        self._own_spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has put the alias's spec into the module, which has one and has been executed.
        module.__spec__ = self._own_spec


def _real(name: str) -> str:
    return f"rediffuse.compat.{name}"
