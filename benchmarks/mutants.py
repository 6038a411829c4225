"""Change the code in small ways, one at a time, and list the changes that no test notices.

    make mutants                                  every change: hours; a second call continues where the first stopped
    make mutants MODULES="files dire.manifest"    the changes of these modules
    make mutants SHARE=0.1                        a tenth of each module's changes, drawn at random from a fixed seed

mutmut makes the changes. For each change it runs the tests that call the changed function, the fastest first, until one
fails. A noticed change is not tried again until its function changes. `.venv/bin/mutmut show NAME` prints a change.
pyproject.toml has the settings; docs/mutants.md has results and the changes that make no difference.
"""

import argparse
import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

from mutmut.__main__ import create_mutants
from mutmut.stats import status_by_exit_code
from mutmut.utils.file_utils import copy_also_copy_files, copy_src_dir, setup_source_paths, walk_mutatable_files

FOLDER = Path("mutants")  # mutmut's own, in the working directory
OUTCOMES = ("killed", "survived", "timeout", "no tests", "not checked")


def outcomes(module: str) -> dict[str, str]:
    """The outcome of every change to a module (such as `dire.manifest`), by the name of the change."""
    path = Path(FOLDER, "src", "rediffuse", *module.split(".")).with_suffix(".py.meta")
    codes = json.loads(path.read_text())["exit_code_by_key"]
    return {name: status_by_exit_code[code] for name, code in codes.items()}


def make_changes() -> list[str]:
    """Write the changed modules and return their names; results of unchanged functions are kept."""
    FOLDER.mkdir(exist_ok=True)
    copy_src_dir()
    copy_also_copy_files()
    setup_source_paths()
    create_mutants(1)
    paths = [path.relative_to("src/rediffuse").with_suffix("") for path in walk_mutatable_files()]
    return sorted(module for module in (".".join(path.parts) for path in paths) if outcomes(module))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modules", nargs="*", default=[], help="below rediffuse, as dire.manifest; none are all")
    parser.add_argument("--share", type=float, default=1, help="share of each module's changes, above 0 and up to 1")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the choice")
    parser.add_argument("--jobs", type=int, default=1, help="changes that are tried at a time")
    options = parser.parse_args()
    modules = make_changes()
    if unknown := sorted(set(options.modules) - set(modules)):
        sys.exit(f"--modules: {', '.join(unknown)}: not among {', '.join(modules)}")

    chosen: dict[str, list[str]] = {}
    for module in options.modules or modules:
        names = sorted(outcomes(module))
        count = max(1, round(options.share * len(names)))
        chosen[module] = random.Random(f"{options.seed} {module}").sample(names, count)
    to_try = [name for module in chosen for name in chosen[module] if outcomes(module)[name] != "killed"]
    if to_try:
        mutmut = Path(sys.executable).with_name("mutmut")
        # Programs that the tests start have to import the changed modules as well.
        environment = os.environ | {"PYTHONPATH": str(Path(FOLDER, "src").absolute()), "OMP_NUM_THREADS": "1"}
        subprocess.run([mutmut, "run", "--max-children", str(options.jobs), *to_try], env=environment, check=True)

    print(f"{'module':24}{'changes':>9}{'chosen':>9}" + "".join(f"{outcome:>12}" for outcome in OUTCOMES))
    for module, names in chosen.items():
        counts = Counter(outcomes(module)[name] for name in names)
        print(f"{module:24}{len(outcomes(module)):9}{len(names):9}" + "".join(f"{counts[o]:12}" for o in OUTCOMES))
    for module, names in chosen.items():
        for name in sorted(names):
            if outcomes(module)[name] != "killed":
                print(f"{outcomes(module)[name]}: {name}")


if __name__ == "__main__":
    main()
