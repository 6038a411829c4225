"""Make the adapter's modules importable under the old packages' names, through Python's import system."""

import importlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from rediffuse.compat.launch import Launch, current, set_current
from rediffuse.errors import ConfigError

ADAPTED = "guided_diffusion"
STAND_INS = ("mpi4py", "blobfile")
"""Other packages that the programs import; replaced if they are not installed. mpi4py is also replaced in processes of
torchrun, which the installed one would take for single processes."""


def install(environment: Mapping[str, str] | None = None) -> None:
    """Make `import guided_diffusion` import `rediffuse.compat.guided_diffusion`, until the process ends.

    If `mpi4py` and `blobfile` are not installed, replacements for one machine are used; in processes of torchrun
    `mpi4py` is always replaced. A second call changes no names.

    Args:
        environment: pass `os.environ` to use torchrun's variables and `OPENAI_LOGDIR` (see `Launch`), as
            `python -m rediffuse.compat` does; without it the settings of an earlier call stay, or one process without
            a log folder is assumed.

    Raises:
        ConfigError: another `guided_diffusion`, or an `mpi4py` to replace, was imported before; or the variables are
            wrong (see `Launch.from_environment`).
    """
    if environment is not None:
        set_current(Launch.from_environment(environment))
    replaced = [ADAPTED, *filter(_needs_replacement, STAND_INS)]
    for name in replaced:
        imported = sys.modules.get(name)
        if imported is not None and imported is not sys.modules.get(_real(name)):
            raise ConfigError(f"{name} is already imported, from {imported.__file__}: call install() before")
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        # At the first place: before a package of that name in the program's folder, and so that the folder of a
        # replacement is not searched for second copies of its modules.
        sys.meta_path.insert(0, _Finder(replaced))


class _Finder(MetaPathFinder):
    """Finds packages and their modules in `rediffuse.compat`."""

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
    """Loads the adapter's module under another name: both names give the same module object."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(_real(spec.name))
        self._own_spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has replaced the spec of the module, which was executed before: restore it.
        module.__spec__ = self._own_spec


def _needs_replacement(name: str) -> bool:
    is_parallel = name == "mpi4py" and current().num_processes > 1
    return is_parallel or importlib.util.find_spec(name) is None


def _real(name: str) -> str:
    return f"rediffuse.compat.{name}"
