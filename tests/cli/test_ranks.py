"""Processes that share a job by the variables of torchrun or Slurm: real processes, killed and started again alone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from detection.tiny import save_noise, save_weights
from dire.test_shards import members, results
from processes import TORCHRUN, environment
from rediffuse.cli.main import main
from rediffuse.cli.ranks import Ranks, ranks
from rediffuse.dire.manifest import read
from rediffuse.errors import ConfigError

NUM_FILES = 12


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
    return folder


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"):
        monkeypatch.delenv(name, raising=False)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def member(agent: int, rank: int) -> int | None:
    """The number of the process that torchrun (the process `agent`) started as `rank`."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:  # it has ended
            continue
        if parent == agent and f"RANK={rank}".encode() in variables:
            return int(entry.name)
    return None


def test_a_killed_process_of_torchrun_is_started_again_alone_and_the_results_are_those_of_one_process(
    model: Path, pictures: Path, tmp_path: Path
) -> None:
    words = ["-m", "rediffuse", "dire", pictures, "--model", model, "--device", "cpu", "--batch-size", "2", "--out"]
    words = [*map(str, words)]
    out = tmp_path / "shared"
    assert main([*words[2:], str(tmp_path / "alone")]) == 0
    with subprocess.Popen([sys.executable, *TORCHRUN, *words, str(out)], env=environment()) as run:
        while not (out / "manifest.journal.1-of-2.sqlite").exists():
            assert run.poll() is None
            time.sleep(0.01)
        killed = member(run.pid, 1)
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        assert run.wait() != 0  # torchrun ends the other process too
    for rank in ("1", "0"):
        variables = environment() | {"RANK": rank, "WORLD_SIZE": "2"}
        subprocess.run([sys.executable, *words, str(out), "-q"], env=variables, check=True)
        assert len(read(out)) >= NUM_FILES // 2
    assert contents(out) == contents(tmp_path / "alone")


def test_processes_fill_shards_of_their_own_and_one_that_is_killed_repeats_nothing(
    model: Path, pictures: Path, tmp_path: Path
) -> None:
    words = ["dire", pictures, "--model", model, "--device", "cpu", "--batch-size", "2", "--out"]
    words = [*map(str, words)]
    out = tmp_path / "shared"
    assert main([*words, str(tmp_path / "alone")]) == 0

    def start(rank: int) -> subprocess.Popen[bytes]:
        variables = environment() | {"RANK": str(rank), "WORLD_SIZE": "2"}
        command = [sys.executable, "-m", "rediffuse", *words, str(out), "--store", "shards", "-q"]
        return subprocess.Popen(command, env=variables)

    with start(1) as killed:
        while not read(out):
            assert killed.poll() is None
            time.sleep(0.002)
        killed.kill()
    assert 0 < len(read(out)) < NUM_FILES // 2
    places = {row.name: row.place for row in read(out)}
    with start(0) as first, start(1) as second:
        assert first.wait() == second.wait() == 0
    assert members(out) == results(tmp_path / "alone")
    assert {row.name: row.place for row in read(out) if row.name in places} == places
    assert len(list((out / "shards").iterdir())) == 3


def test_processes_of_slurm_share_a_table_and_the_last_one_joins_it(
    model: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = tmp_path / "shared.csv"
    words = ["detect", str(pictures), "--model", str(model), "--detector", str(model / "detector"), "--device", "cpu"]
    assert main([*words, "--out", str(tmp_path / "alone.csv")]) == 0
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "3")
    for rank in ("2", "0", "1"):
        assert not table.exists()
        monkeypatch.setenv("SLURM_PROCID", rank)
        capsys.readouterr()
        assert main([*words, "--out", str(table)]) == 0
        assert "4 files: 0 generated, 4 unsure, 0 real" in capsys.readouterr().out
    assert table.read_bytes() == (tmp_path / "alone.csv").read_bytes()

    assert main([*words, "--out", str(table)]) == 0  # started again, it finds its verdicts
    assert main([*words, "--out", str(table), "--stability"]) == 2
    assert "stability=True (there False)" in capsys.readouterr().err
    assert main([*words, "--out", str(table), "--report", str(tmp_path / "r.html")]) == 2
    assert "--report: is only for one process, SLURM_STEP_NUM_TASKS=3" in capsys.readouterr().err
    assert main([*words, "--out", str(table), "--engine", "ray"]) == 2
    assert "--engine ray: is only for one process" in capsys.readouterr().err


def test_a_process_that_was_killed_continues_its_table_and_judges_changed_files_again(
    model: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, table = tmp_path / "pictures", tmp_path / "t.csv"
    folder.mkdir()
    for path in pictures.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    words = ["detect", str(folder), "--model", str(model), "--detector", str(model / "detector"), "--device", "cpu"]
    words += ["--batch-size", "1", "--out"]
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    run = subprocess.Popen([sys.executable, "-m", "rediffuse", *words, str(table)], stdout=subprocess.DEVNULL)
    rows = tmp_path / "t.csv.parts" / "0-of-2.jsonl"
    while not rows.exists() or rows.read_bytes().count(b"\n") < 3:
        assert run.poll() is None
        time.sleep(0.002)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    with rows.open("ab") as file:
        file.write(b'[1, "0c3f", {"file": "')  # half a line
    Image.effect_noise((16, 16), 9).convert("RGB").save(folder / "00.png")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        assert main([*words, str(table)]) == 0
    monkeypatch.delenv("RANK")
    monkeypatch.delenv("WORLD_SIZE")
    assert main([*words, str(tmp_path / "alone.csv")]) == 0
    assert table.read_bytes() == (tmp_path / "alone.csv").read_bytes()


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ("", Ranks()),
        ("RANK=1 WORLD_SIZE=2 LOCAL_RANK=1", Ranks(1, 2, 1, "WORLD_SIZE")),
        ("SLURM_PROCID=3 SLURM_STEP_NUM_TASKS=4 SLURM_LOCALID=0", Ranks(3, 4, 0, "SLURM_STEP_NUM_TASKS")),
        ("SLURM_PROCID=0 SLURM_NTASKS=4", Ranks()),  # a batch script, which is one process
        ("SLURM_PROCID=1 SLURM_STEP_NUM_TASKS=2 RANK=5 WORLD_SIZE=8", Ranks(5, 8, None, "WORLD_SIZE")),
    ],
)
def test_the_variables_of_a_launcher_give_the_place(
    variables: str, place: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in variables.split():
        monkeypatch.setenv(*variable.split("="))
    assert ranks() == place


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ("RANK=2 WORLD_SIZE=2", "RANK=2, WORLD_SIZE=2: RANK must be less than WORLD_SIZE"),
        ("WORLD_SIZE=2", "WORLD_SIZE=2: RANK is needed too"),
        ("RANK=0", "RANK=0: WORLD_SIZE is needed too"),
        ("RANK=x WORLD_SIZE=2", "RANK=x: a whole number is needed"),
        ("RANK=0 WORLD_SIZE=1 SLURM_PROCID=1 SLURM_STEP_NUM_TASKS=2", "contradict each other"),
        ("RANK=0 WORLD_SIZE=2 SLURM_PROCID=1 SLURM_STEP_NUM_TASKS=2", "contradict each other"),
    ],
)
def test_variables_that_do_not_fit_are_named(variables: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in variables.split():
        monkeypatch.setenv(*variable.split("="))
    with pytest.raises(ConfigError, match=message):
        ranks()
