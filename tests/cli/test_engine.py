"""`--engine ray` on a real Ray cluster of this machine with two workers, some of which are killed."""

import csv
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from detection.tiny import save_noise, save_weights
from dire.test_shards import members, results
from rediffuse.cli.main import main
from rediffuse.cluster import LEFT_OUT
from rediffuse.dire.manifest import read

ray = pytest.importorskip("ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")

pytestmark = [
    pytest.mark.timeout(900),  # every new worker imports torch, which takes long on a busy machine
    pytest.mark.filterwarnings("ignore:.*is deprecated.*:DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray leaves pipes and log files to the collector
]

NUM_FILES = 40
HOOK = """
import os, signal, sys
def end(event, args):
    if event == "open" and str(args[0]).endswith("deadly.png"):
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(end)
"""
"""What the workers run when they start: the system kills each that opens a file of this name."""


class Cluster:
    """A Ray cluster of one machine with two cores."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="ray")  # short, as the paths of sockets must be
        hooks = Path(self.folder.name) / "hooks"
        hooks.mkdir()
        (
            Path(self.folder.name) / "ray"
        ).mkdir()  # for the address of the cluster, which Ray writes only where a folder is
        (hooks / "sitecustomize.py").write_text(HOOK)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
            patch.setenv("PYTHONPATH", str(hooks))
            patch.setenv("RAY_TMPDIR", self.folder.name)
            options = {"num_cpus": 2, "object_store_memory": 100_000_000, "include_dashboard": False}
            self.cluster = cluster_utils.Cluster(
                initialize_head=True, head_node_args=options | {"temp_dir": self.folder.name}
            )

    @property
    def flags(self) -> list[str]:
        return ["--engine", "ray", "--address", self.cluster.address, "--device", "cpu"]

    def workers(self) -> list[int]:
        """The processes that hold a network."""
        [raylet] = self.cluster.head_node.all_processes["raylet"]
        return [
            int(entry.name)
            for entry in Path("/proc").glob("[0-9]*")
            if _parent(entry) == raylet.process.pid and b"MapWorker" in _read(entry / "cmdline")
        ]


def _parent(entry: Path) -> int:
    return int((_read(entry / "stat").rpartition(b")")[2].split() or [b"", b"0"])[1])


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # the process has ended
        return b""


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    started = Cluster()
    yield started
    started.cluster.shutdown()
    started.folder.cleanup()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model and, in detector/, a detector that finds every image unsure."""
    folder = tmp_path_factory.mktemp("model")
    save_weights(folder, (1, 1))
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    save_noise(folder, NUM_FILES)
    (folder / "words.png").write_text("no image")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_killed_command_and_a_killed_worker_leave_the_bytes_of_a_local_job(
    cluster: Cluster, model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["dire", str(pictures), "--model", str(model), "--batch-size", "2", "--out"]
    out = tmp_path / "out"
    assert main([*words, str(tmp_path / "local"), "--device", "cpu"]) == 1

    command = [sys.executable, "-m", "rediffuse", *words, str(out), *cluster.flags]
    driver = subprocess.Popen(command, stderr=subprocess.PIPE)
    while not any(row.status == "done" for row in read(out)):
        assert driver.poll() is None, driver.communicate()[1]
        time.sleep(0.05)
    driver.kill()
    driver.communicate()
    num_before = sum(row.status == "done" for row in read(out))
    assert 0 < num_before < NUM_FILES

    finished = threading.Event()

    def maps() -> list[Path]:
        return list((out / "maps").glob("[0-9]*"))

    def kill_one() -> None:
        num_there = len(maps())
        while len(maps()) == num_there and not finished.is_set():
            time.sleep(0.01)
        if not finished.is_set():
            os.kill(cluster.workers()[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    capsys.readouterr()
    status = main([*words, str(out), *cluster.flags])
    finished.set()
    killer.join()
    assert status == 1
    assert f"{NUM_FILES - num_before} done, 1 failed, {num_before} done before" in capsys.readouterr().out
    assert contents(out) == contents(tmp_path / "local")


def test_workers_fill_shards_of_their_own(cluster: Cluster, model: Path, pictures: Path, tmp_path: Path) -> None:
    words = ["dire", str(pictures), "--model", str(model), "--batch-size", "2", "--out"]
    assert main([*words, str(tmp_path / "local"), "--device", "cpu"]) == 1
    assert main([*words, str(tmp_path / "out"), *cluster.flags, "--store", "shards"]) == 1
    assert members(tmp_path / "out") == results(tmp_path / "local")
    assert len(list((tmp_path / "out" / "shards").iterdir())) == 2


def test_a_file_that_ends_its_worker_twice_is_reported_and_the_others_are_judged(
    cluster: Cluster, model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deadly, table = tmp_path / "deadly.png", tmp_path / "ray.csv"
    deadly.write_bytes((pictures / "00.png").read_bytes())
    words = ["detect", str(pictures), str(deadly), "--model", str(model), "--detector", str(model / "detector")]
    assert main([*words, "--device", "cpu", "--out", str(tmp_path / "local.csv")]) == 1
    assert main([*words, *cluster.flags, "--out", str(table)]) == 1
    printed = capsys.readouterr()
    assert f"{NUM_FILES} unsure, 0 real, 2 not judged" in printed.out
    assert "a worker ended: its files are processed again" in printed.err
    expected, given = (table.read_text().splitlines() for table in (tmp_path / "local.csv", table))
    assert given[:-1] == expected[:-1]
    [*_, row] = csv.DictReader(given)
    assert (row["file"], row["decision"]) == ("deadly.png", "")
    assert row["reason"] == f"{deadly}: {LEFT_OUT}"


def test_pages_are_those_of_a_local_job(cluster: Cluster, model: Path, pictures: Path, tmp_path: Path) -> None:
    words = ["detect", *map(str, sorted(pictures.iterdir())[:3]), "--model", str(model)]
    words += ["--detector", str(model / "detector"), "--stability", "--report"]
    assert main([*words, str(tmp_path / "local.html"), "--device", "cpu"]) == 0
    assert main([*words, str(tmp_path / "ray.html"), *cluster.flags]) == 0
    assert (tmp_path / "ray.html").read_bytes() == (tmp_path / "local.html").read_bytes()


def test_wrong_flags_are_one_line(
    cluster: Cluster, model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["dire", str(pictures), "--model", str(model), "--out", str(tmp_path / "out")]
    for flags, message in (
        (["--num-workers", "2"], "--num-workers 2: is only for --engine ray"),
        (["--engine", "ray", "--address", "127.0.0.1:1"], "--address 127.0.0.1:1: no Ray cluster answers there"),
        (["--engine", "ray", "--address", "here"], "--address here: auto or HOST:PORT is needed"),
        ([*cluster.flags[:4], "--num-gpus-per-worker", "2"], "--num-gpus-per-worker 2: from 0 to 0 are allowed"),
        ([*cluster.flags, "--num-workers", "0"], "--num-workers 0: at least 1 is needed"),
        ([*cluster.flags, "--model", str(tmp_path)], f"{tmp_path}"),
    ):
        assert main([*words, *flags]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_the_extra_the_engine_says_what_to_install(pictures: Path, tmp_path: Path) -> None:
    program = "import sys; sys.modules['ray'] = None; from rediffuse.cli.main import main; sys.exit(main())"
    words = ["dire", str(pictures), "--out", str(tmp_path / "out"), "--engine", "ray"]
    run = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
    assert run.returncode == 2
    [line] = run.stderr.splitlines()
    assert line.startswith("rediffuse: --engine ray: needs Ray (pip install 'rediffuse[ray]')")


def test_a_local_job_loads_nothing_of_ray(model: Path, pictures: Path, tmp_path: Path) -> None:
    program = "import sys; from rediffuse.cli.main import main; main(); assert 'ray' not in sys.modules"
    for command in (["dire", "--out", tmp_path / "out"], ["detect", "--detector", model / "detector"]):
        words = [*command, pictures / "00.png", "--model", model, "--device", "cpu"]
        run = [sys.executable, "-c", program, *map(str, words)]
        assert subprocess.run(run, capture_output=True, check=False).returncode == 0
