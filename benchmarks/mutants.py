"""Change the code in small ways, one at a time, and list the changes that no test notices.

    make mutants                                  every change: hours; a second call continues where the first stopped
    make mutants MODULES="files dire.manifest"    the changes of these modules
    make mutants SHARE=0.1                        a tenth of each module's changes, drawn at random from a fixed seed

mutmut makes the changes and switches one of them on. This script runs the tests: pytest collects them once, and each
change is tried in a fork of this process by the tests that call the changed function, the cheapest first, until one
fails. Results are stored in mutants/: a noticed change is not tried again until its function changes, and for the
others only new and changed tests are run. `.venv/bin/mutmut show NAME` prints a change. docs/mutants.md has results.
"""

import argparse
import contextlib
import gc
import hashlib
import importlib
import json
import math
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from pathlib import Path

import pytest
from mutmut.__main__ import create_mutants
from mutmut.configuration import config
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.state import state
from mutmut.stats import status_by_exit_code
from mutmut.utils.file_utils import copy_also_copy_files, copy_src_dir, setup_source_paths, walk_mutatable_files

FOLDER = Path("mutants").absolute()  # mutmut's own, in the working directory
ERROR = FOLDER / "error.txt"
OUTCOMES = ("killed", "timeout", "survived", "no tests", "not checked")
NOTICED, SURVIVED, NO_TESTS, TIMEOUT = 1, 0, 33, 36  # exit codes as mutmut stores them
BROKEN = 70  # exit status of a fork in which this script failed
SAVE_SECONDS = 30  # between two calls that store what was recorded
CPU_SECONDS, CPU_FACTOR = 5, 5  # a test may compute this long, and this many times its usual time
WALL_SECONDS = 1800  # a test may wait this long; a busy machine is no endless loop


@dataclass
class Test:
    """The functions that a test and its fixtures call, with the hashes of their code, and its cost."""

    digest: str  # of the test's file
    functions: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0  # of CPU time; 0 before it was run

    def rank(self, name: str) -> tuple[int, str, float]:
        """Cheap tests first; among those of about equal cost the tests of a file together, as they share fixtures."""
        return math.ceil(math.log2(self.seconds + 1e-3)), name.partition("::")[0], self.seconds


def make_changes() -> dict[str, SourceFileMutationData]:
    """Write the changed modules; return their outcomes by module (as `dire.manifest`). Those of equal code are kept."""
    FOLDER.mkdir(exist_ok=True)
    shutil.rmtree(FOLDER / "tests", ignore_errors=True)
    for copy in (FOLDER / "src").rglob("*.py"):
        os.utime(copy, (0, 0))  # mutmut keeps a copy that is newer than its source, also that of another commit
    with Path(os.devnull).open("w") as null, contextlib.redirect_stdout(null):
        copy_src_dir()
        copy_also_copy_files()
        setup_source_paths()
        create_mutants(1)
    modules: dict[str, SourceFileMutationData] = {}
    for path in walk_mutatable_files():
        module = SourceFileMutationData(path=path)
        module.meta_path = module.meta_path.absolute()
        module.load()
        if module.exit_code_by_key:
            modules[".".join(path.relative_to("src/rediffuse").with_suffix("").parts)] = module
    return dict(sorted(modules.items()))


def outcome(module: SourceFileMutationData, change: str) -> str:
    return status_by_exit_code[module.exit_code_by_key[change]]


def in_fork(task: Callable[[], bool]) -> int:
    """Start a task in a forked process and return its id. The exit status is 0 if the task returns true."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = int(not task())
        except Exception:
            ERROR.write_text(traceback.format_exc(), encoding="utf-8")
            status = BROKEN
        finally:
            os._exit(status)
    return pid


def cpu_seconds() -> float:
    """The CPU time of this process and of the programs that it started and that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def read(name: str) -> dict[str, dict]:
    path = FOLDER / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write(name: str, content: dict[str, dict]) -> None:
    path = FOLDER / f"{name}.json"
    path.with_suffix(".new").write_text(json.dumps(content), encoding="utf-8")
    path.with_suffix(".new").replace(path)


class Trials:
    """A pytest plugin that tries changes instead of running the tests.

    `chosen` are names of changes by module. First it runs the tests that are new or whose code has changed, and
    records which functions they call.
    """

    def __init__(self, modules: dict[str, SourceFileMutationData], chosen: dict[str, list[str]], jobs: int) -> None:
        self.modules, self.chosen, self.jobs = modules, chosen, jobs
        self.hashes = state().current_function_hashes
        self.tests: dict[str, Test] = {}
        self.passed: dict[str, dict[str, str]] = read("passed")  # digests by test, of changes that survived
        self.items: dict[str, pytest.Item] = {}
        self.shared: dict[pytest.FixtureDef, tuple[set[str], float]] = {}
        self.shared_seconds = 0.0
        self.saved_at = math.inf  # while nothing is recorded

    @pytest.hookimpl
    def pytest_collection(self) -> None:
        """Before the tests take their settings of hypothesis: a failing example need not become smaller."""
        from hypothesis import Phase, settings

        settings.register_profile("mutants", settings(), database=None, phases=(Phase.explicit, Phase.generate))
        settings.load_profile("mutants")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        if session.testsfailed:
            return None  # pytest reports the errors of the collection
        self.items = {item.nodeid: item for item in session.items}
        digests = {item.path: hashlib.sha256(item.path.read_bytes()).hexdigest()[:12] for item in session.items}
        known = {name: Test(**test) for name, test in read("tests").items() if name in self.items}
        self.tests = {name: Test(digests[item.path]) for name, item in self.items.items()}
        for name, test in known.items():
            if test.digest == digests[self.items[name].path] and all(
                self.hashes.get(function) == code for function, code in test.functions.items()
            ):
                self.tests[name] = test
        if [name for name, test in self.tests.items() if not test.seconds]:
            print("recording which functions the tests call", flush=True)
            if os.waitpid(in_fork(self.record), 0)[1]:
                pytest.exit("a test fails without any change", returncode=1)
            self.tests = {name: Test(**test) for name, test in read("tests").items()}
        for name in read("imports"):  # otherwise each fork imports what only some tests need, for a second or more
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        gc.freeze()  # no collection touches the pages that forked processes share
        self.try_changes()
        return True

    def run(self, names: list[str], limited: bool = False) -> bool:
        """Whether the tests pass; stops at the first one that does not."""
        items = [self.items[name] for name in names]
        for item, following in zip_longest(items, items[1:]):
            if limited:
                soft = time.process_time() + CPU_SECONDS + CPU_FACTOR * self.tests[item.nodeid].seconds
                resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(soft), resource.RLIM_INFINITY))
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if item.session.testsfailed:
                return False
        return True

    def record(self) -> bool:
        set_mutant_under_test("stats")
        self.saved_at, before = time.monotonic(), set(sys.modules)
        if not self.run([name for name, test in self.tests.items() if not test.seconds]):
            return False
        self.save()
        write("imports", read("imports") | {name: {} for name in sorted(set(sys.modules) - before)})
        return True

    def save(self) -> None:
        write("tests", {name: asdict(test) for name, test in self.tests.items()})
        self.saved_at = time.monotonic()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        state()._stats = set()
        start, self.shared_seconds = cpu_seconds(), 0.0
        result = yield
        definitions = [definitions[-1] for definitions in item._fixtureinfo.name2fixturedefs.values()]
        shared = [self.shared[definition] for definition in definitions if definition in self.shared]
        functions = state()._stats.union(*(functions for functions, _ in shared))
        test = self.tests[item.nodeid]
        test.functions = {function: self.hashes[function] for function in functions if function in self.hashes}
        test.seconds = cpu_seconds() - start - self.shared_seconds + sum(seconds for _, seconds in shared)
        if time.monotonic() > self.saved_at + SAVE_SECONDS:
            self.save()
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef) -> Generator[None, object, object]:
        """Count a fixture that tests share as a part of each of them."""
        if fixturedef.scope == "function":
            return (yield)
        outer, state()._stats = state()._stats, set()
        start = cpu_seconds()
        try:
            return (yield)
        finally:
            seconds = cpu_seconds() - start
            self.shared[fixturedef] = state()._stats, seconds
            self.shared_seconds += seconds
            state()._stats = outer

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            print(report.nodeid, report.longreprtext, flush=True)

    def try_changes(self) -> None:
        tests_of: dict[str, list[str]] = defaultdict(list)
        for name, test in sorted(self.tests.items(), key=lambda entry: entry[1].rank(entry[0])):
            for function in test.functions:
                tests_of[function].append(name)
        running: dict[int, tuple[SourceFileMutationData, str, dict[str, str]]] = {}

        def wait() -> None:
            pid, status = os.wait()
            if pid in running:
                self.store(*running.pop(pid), os.waitstatus_to_exitcode(status))

        with tempfile.TemporaryDirectory() as folder:
            for name, changes in self.chosen.items():
                module, start = self.modules[name], cpu_seconds()
                for change in changes:
                    if outcome(module, change) in ("killed", "timeout"):
                        continue
                    passed = self.passed.get(change, {}) if outcome(module, change) == "survived" else {}
                    digests = {test: self.tests[test].digest for test in tests_of[change.partition("__mutmut_")[0]]}
                    new = [test for test, digest in digests.items() if passed.get(test) != digest]
                    if not digests:
                        self.store(module, change, digests, NO_TESTS)
                    elif new:
                        while len(running) >= self.jobs:
                            wait()
                        pid = in_fork(lambda change=change, new=new: self.attempt(change, new, folder))
                        running[pid] = module, change, digests
                while running:
                    wait()
                counts = Counter(outcome(module, change) for change in changes)
                results = ", ".join(f"{counts[name]} {name}" for name in OUTCOMES if counts[name])
                print(f"{name}: {results}; {cpu_seconds() - start:.0f} s of CPU time", flush=True)

    def attempt(self, change: str, tests: list[str], folder: str) -> bool:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        os.environ["PYTEST_DEBUG_TEMPROOT"] = folder  # where pytest makes its tmp_path
        set_mutant_under_test(change)
        return self.run(tests, limited=True)

    def store(self, module: SourceFileMutationData, change: str, digests: dict[str, str], status: int) -> None:
        """`digests` are of the tests that pass if the change survived."""
        if status == SURVIVED:
            self.passed[change] = digests
            write("passed", self.passed)
        elif status == -signal.SIGXCPU:
            status = TIMEOUT
        elif status == BROKEN:
            sys.exit(f"{change} was not tried: an error of this script: {ERROR.read_text(encoding='utf-8')}")
        elif status != NO_TESTS:
            status = NOTICED
        module.exit_code_by_key[change] = status
        module.save()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modules", nargs="*", default=[], help="below rediffuse, as dire.manifest; none are all")
    parser.add_argument("--share", type=float, default=1, help="share of each module's changes, above 0 and up to 1")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the choice")
    parser.add_argument("--jobs", type=int, default=1, help="changes that are tried at a time")
    options = parser.parse_args()
    # Programs that the tests start have to import the changed modules as well.
    os.environ |= {"PYTHONPATH": str(FOLDER / "src"), "OMP_NUM_THREADS": "1"}
    modules = make_changes()
    if unknown := sorted(set(options.modules) - set(modules)):
        sys.exit(f"--modules: {', '.join(unknown)}: not among {', '.join(modules)}")

    chosen: dict[str, list[str]] = {}
    for module in options.modules or modules:
        names = sorted(modules[module].exit_code_by_key)
        count = max(1, round(options.share * len(names)))
        chosen[module] = random.Random(f"{options.seed} {module}").sample(names, count)
    selection = config().pytest_add_cli_args_test_selection
    os.chdir(FOLDER)
    arguments = ["--rootdir=.", "-qqq", "--capture=no", "--tb=native", "-o", f"timeout={WALL_SECONDS}", *selection]
    if status := pytest.main(arguments, plugins=[Trials(modules, chosen, options.jobs)]):
        sys.exit(int(status))

    print(f"{'module':24}{'changes':>9}{'chosen':>9}" + "".join(f"{name:>12}" for name in OUTCOMES))
    for module, names in chosen.items():
        counts = Counter(outcome(modules[module], name) for name in names)
        changes = len(modules[module].exit_code_by_key)
        print(f"{module:24}{changes:9}{len(names):9}" + "".join(f"{counts[name]:12}" for name in OUTCOMES))
    for module, names in chosen.items():
        for name in sorted(names):
            if (result := outcome(modules[module], name)) != "killed":
                print(f"{result}: {name}")


if __name__ == "__main__":
    main()
