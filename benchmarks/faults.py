"""Interrupt commands in many ways, let them go on, and count what was lost: `docs/reliability.md`.

    OMP_NUM_THREADS=1 python benchmarks/faults.py --trials 50

Every trial runs a command in its own process on a small model and images of 8 px, disturbs it, and calls it again until
it ends. The files are then compared, byte for byte, with those of a call that was not disturbed. Every trial is a line
of `--results`; the same command makes the trials that are missing there, and prints the table of all.

The commands run in copies of this process (fork), which has imported everything: so most of the time of a trial is the
command itself. Two processes of a training are started by torchrun's own agent, which forks them too. All files are in
memory (tmpfs), where a flush is replaced by a pause of `FLUSH_SECONDS`, since other work on the machine can make the
flushes of a real disk take longer than everything else. A full disk is a small tmpfs, a read-only disk a read-only
mount. These mounts need Linux and the rights of root, and are in a namespace that no other process sees.
"""

import contextlib
import ctypes
import importlib
import json
import os
import pkgutil
import random
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from script import read_flags
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

import rediffuse
from rediffuse.cli.main import main as run_command
from rediffuse.diffusion.config import ProcessConfig
from rediffuse.dire.manifest import each_row
from rediffuse.models.config import UNetConfig
from rediffuse.models.superres import SuperResModel
from rediffuse.models.unet import UNetModel
from rediffuse.zoo.model import DiffusionModel, Provenance

COMPARED = {".png", ".jpg", ".gif", ".safetensors", ".pt", ".parquet", ".json", ".csv", ".html", ".txt"}
PARTIAL = re.compile(r"\..+\.[0-9a-f]{8}\.\w+")
"""Names of temporary files (`rediffuse.files.atomic_write`)."""
LOSS_TOLERANCE = 1e-3
"""Relative; the gradient of two halves of a batch rounds differently from that of the whole batch."""
FLUSH_SECONDS = 0.005
"""Time that a job waits for the disk for each file."""
_CLASSES = tuple(f"{split}/{label}" for split in ("train", "validation", "test") for label in ("real", "generated"))
_PAGE = os.sysconf("SC_PAGE_SIZE")
_CLONE_NEWNS, _PR_SET_CHILD_SUBREAPER = 0x20000, 36


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Interrupt commands, let them go on, and count what was lost."""

    trials: int = 50
    """SIGKILLs of each command; of every other fault a fifth, at least one."""
    commands: tuple[str, ...] = ()
    """Names of commands; all if not given."""
    faults: tuple[str, ...] = ()
    """Names of faults; all if not given."""
    results: Path = Path("runs/faults.jsonl")
    """The trials so far, one line each; those that are missing are made."""
    seed: int = 0
    """Random seed of times and sizes."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command of `rediffuse`."""

    words: tuple[str, ...]
    """OUT in them stands for the folder of the results."""
    other: tuple[str, ...]
    """The settings in which a second job on the same folder differs."""
    num_processes: int = 1
    images: Path | None = None
    """The folder of the images that the command reads, if its results follow them when they change."""


class Job:
    """A call of `rediffuse` in a process of its own, or in several below an agent of torchrun."""

    def __init__(self, words: list[str], log: Path, num_processes: int = 1) -> None:
        self.is_launched = num_processes > 1
        self.pid = os.fork()
        if self.pid == 0:
            os.setpgid(0, 0)
            with log.open("w") as output:
                for stream in (1, 2):
                    os.dup2(output.fileno(), stream)
            os.fsync = _slow_fsync
            status = _launch(words, num_processes) if self.is_launched else run_command(words)
            os._exit(status)  # without the exit handlers of the parent
        with contextlib.suppress(PermissionError, ProcessLookupError):  # it has done it, or has ended
            os.setpgid(self.pid, self.pid)

    def ended(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def ranks(self) -> list[int]:
        """The processes of a training below the agent."""
        if not self.is_launched:
            return []
        return [int(pid) for task in Path(f"/proc/{self.pid}/task").glob("*/children") for pid in _words(task)]

    def wait(self) -> int:
        """The exit status; negative for a signal."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def kill(self, pids: list[int]) -> None:
        """SIGKILL to some of its processes; wait for all, except those that only read images."""
        ranks = self.ranks()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        self.wait()
        for pid in ranks:  # if the agent was killed, they are children of this process now
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _slow_fsync(file: int) -> None:
    """As on a disk: in memory, a temporary file would exist for too short a time to be seen."""
    time.sleep(FLUSH_SECONDS)


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:  # the process has ended
        return []


def _launch(words: list[str], num_processes: int) -> int:
    """What torchrun does, with forked processes."""
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num_processes,
        run_id="faults",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="fork",
        logs_specs=DefaultLogsSpecs(),
    )
    try:
        elastic_launch(config, _rank)(words)
    except ChildFailedError:
        return 1
    except SignalException as error:
        return 128 + error.sigval
    return 0


def _rank(words: list[str]) -> None:
    os.setsid()  # as in torchrun, so that a signal to the group reaches the agent only
    sys.exit(run_command(words))


def import_everything() -> None:
    """Import what the commands import when they run, also inside torch."""
    for module in pkgutil.walk_packages(rediffuse.__path__, "rediffuse."):
        if not module.name.startswith(("rediffuse.compat", "rediffuse.__main__")):
            with contextlib.suppress(ModuleNotFoundError):  # a kernel for GPUs, on a machine without Triton
                importlib.import_module(module.name)
    for name in ("torch._dynamo", "torch.distributed.fsdp", "torch.utils.tensorboard"):
        importlib.import_module(name)
    Image.init()


def make_data(folder: Path) -> dict[str, Command]:
    """Images, models and a detector in `folder`, and the commands that use them, by name."""
    rng = np.random.default_rng(0)
    for name, count in (("images", 12), *((f"labelled/{name}", 3) for name in _CLASSES)):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / name / f"{index:02}.png")
    config = UNetConfig(image_size=8, model_channels=32, channel_mult=(1,), num_res_blocks=1)
    process = ProcessConfig(num_timesteps=100, variance="fixed_large")
    for name, kind in (("unet", UNetModel), ("upsampler", SuperResModel)):
        torch.manual_seed(0)
        network = kind(config)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.02)
        DiffusionModel(
            network=network,
            process_config=process,
            provenance=Provenance(source=name, sha256=""),
            training={"small_size": 4},
        ).save(folder / name)
    images, labelled, unet, upsampler, detector = (
        str(folder / name) for name in ("images", "labelled", "unet", "upsampler", "detector")
    )
    small, out = ("--batch-size", "2", "--device", "cpu"), ("--out", "OUT")
    page, strips = ("--evidence", "OUT", "--out", "OUT/verdicts.csv", "--force"), ("--progressive", "strip")
    network = ("--image-size", "8", "--model-channels", "32", "--channel-mult", "1", "--num-res-blocks", "1")
    network += ("--attention-resolutions", "1")
    loop = ("--num-steps", "12", "--save-every", "2", "--evaluate-every", "4", "--log-every", "2", "--num-images", "2")
    train = ("train", "diffusion", "--data", images, *network, *loop, "--num-sampling-steps", "2", *small, *out)
    train_detector = ("train", "detector", "--data", labelled, "--model", unet, "--steps", "5", *small)
    train_detector += ("--inverse-penalties", "0.1")
    if Job([*train_detector, "--out", detector], folder / "log.txt").wait():
        sys.exit((folder / "log.txt").read_text())
    return {
        "dire": Command(
            words=("dire", images, "--model", unet, "--steps", "5", *small, *out),
            other=("--depth", "3"),
            images=Path(images),
        ),
        "dire, shards": Command(
            words=("dire", images, "--model", unet, "--steps", "5", "--store", "shards", *small, *out),
            other=("--depth", "3"),
            images=Path(images),
        ),
        "detect": Command(
            words=("detect", images, "--model", unet, "--detector", detector, *small, *page),
            other=("--stability",),
            images=Path(images),
        ),
        "sample": Command(
            words=("sample", "--model", unet, "--seeds", "0-11", *strips, "--steps", "5", *small, *out),
            other=("--sampler", "ddpm"),
        ),
        "upscale": Command(
            words=("upscale", images, "--model", upsampler, "--steps", "5", *small, *out),
            other=("--seed", "7"),
            images=Path(images),
        ),
        "train diffusion": Command(words=(*train, "--num-workers", "1"), other=("--seed", "7")),
        "train diffusion, 2 processes": Command(words=train, other=("--seed", "7"), num_processes=2),
        "train detector": Command(
            words=(*train_detector, *out),
            other=("--depths", "3"),
            images=Path(labelled) / _CLASSES[0],
        ),
    }


def content(out: Path) -> dict[str, bytes]:
    """The results in a folder: their bytes by name, without logs and temporary files."""
    found = {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.rglob("*")
        if path.suffix in COMPARED and not PARTIAL.fullmatch(path.name)
    }
    if shards := sorted((out / "shards").glob("*.tar")):
        for shard in shards:
            for name, data in in_shard(shard):
                found[f"{name} again" if name in found else name] = data
        found.pop("manifest.parquet", None)  # has their places, which depend on the order in which they were written
        rows = [row.at(None) for row in each_row(out)]
        found[f"{len(rows)} rows"] = repr(rows).encode()
    return found


def in_shard(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of the files in a shard, as far as they are whole."""
    with contextlib.suppress(tarfile.ReadError), tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member)
            assert file is not None
            data = file.read()
            if len(data) == member.size:
                yield member.name, data


def has_partial(out: Path) -> bool:
    return any(PARTIAL.fullmatch(path.name) for path in out.rglob(".*"))


def losses(out: Path) -> list[float]:
    """The losses in the log of a training."""
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


class Trials:
    """The trials of one command."""

    def __init__(self, command: Command, folder: Path) -> None:
        self.command, self.log = command, folder / "log.txt"
        self.disk = folder / "disk"
        """Where a full or read-only disk is mounted."""
        self.out = self.disk / "out"
        self.rng = random.Random()
        self.disk.mkdir(parents=True)
        self.losses: list[float] = []
        self.other = self._reference(command.other)
        begun = time.monotonic()
        self.whole = self._reference(())
        self.seconds = time.monotonic() - begun

    def _reference(self, more: tuple[str, ...]) -> dict[str, bytes]:
        if status := self.job(more).wait():
            sys.exit(f"{' '.join(self.command.words)}: exit status {status}\n{self.log.read_text()}")
        found = content(self.out)
        if self.command.words[0] == "train" and (self.out / "metrics.jsonl").exists():
            self.losses = losses(self.out)
        shutil.rmtree(self.out)
        return found

    def job(self, more: tuple[str, ...] = (), *, log: str = "log.txt", num_processes: int | None = None) -> Job:
        words = [word.replace("OUT", str(self.out)) for word in (*self.command.words, *more)]
        return Job(words, self.log.with_name(log), num_processes or self.command.num_processes)

    def wait_until(self, job: Job, share: float) -> None:
        """Wait for this share of the time of an undisturbed call, or for the end of the job."""
        until = time.monotonic() + share * self.seconds
        while time.monotonic() < until and not job.ended():
            time.sleep(0.001)

    def run(self, fault: "Fault", index: int) -> Counter[str]:
        """Make one trial: disturb a job, let it go on, and count."""
        counts: Counter[str] = Counter(trials=1)
        fault.disturb(self, index, counts)
        if self.out.exists():
            now = content(self.out)
            if fault.keeps_input:  # a whole name must have whole content, also now
                counts["half-written"] = _differ(_results(self.whole), _results(now))
        counts["not resumed"] = self.job(num_processes=fault.then(self.command)).wait() != 0
        counts["different"] = not fault.is_same(self)
        counts["partial left"] = has_partial(self.out)
        shutil.rmtree(self.out)
        return counts

    def check_lines(self, counts: Counter[str], status: int) -> None:
        """Count an error that is not a line that says what could not be written; torchrun's agent adds its own."""
        lines = [line for line in self.log.read_text().splitlines() if "torch/distributed/elastic" not in line]
        has_line = any(line.startswith("rediffuse: ") and "written" in line for line in lines)
        counts["traces"] = any("Traceback" in line for line in lines) or (status != 0 and not has_line)


def _results(files: dict[str, bytes]) -> dict[str, bytes]:
    """The files without checkpoints: a stop signal adds one, which may say that samples are still to be made."""
    return {name: data for name, data in files.items() if not name.startswith("checkpoints/")}


def _differ(a: dict[str, bytes], b: dict[str, bytes]) -> bool:
    """Whether a file has other bytes in `b` than in `a`."""
    return any(a[name] != b[name] for name in a.keys() & b.keys())


def _same_bytes(trials: Trials) -> bool:
    """The same results, and equal checkpoints of equal steps."""
    found = content(trials.out)
    return _results(found) == _results(trials.whole) and not _differ(trials.whole, found)


def _same_results(trials: Trials) -> bool:
    """The cache of a training may also hold what belongs to other contents of its files."""
    found = content(trials.out)
    return all(found.get(name) == data for name, data in trials.whole.items())


def _same_course(trials: Trials) -> bool:
    found = losses(trials.out)
    return len(found) == len(trials.losses) and np.allclose(found, trials.losses, rtol=LOSS_TOLERANCE)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What happens to a job, and what must be the case afterwards."""

    disturb: Callable[[Trials, int, Counter[str]], None]
    is_for: Callable[[Command], bool] = lambda command: True
    then: Callable[[Command], int] = lambda command: command.num_processes
    """The number of processes of the call that goes on."""
    is_same: Callable[[Trials], bool] = _same_bytes
    keeps_input: bool = True
    needs_mounts: bool = False


def killed(trials: Trials, index: int, counts: Counter[str]) -> None:
    """SIGKILL at a random time; in every second trial, the next time that a temporary file is visible."""
    job = trials.job()
    trials.wait_until(job, trials.rng.random())
    while index % 2 and not job.ended() and not has_partial(trials.out):
        time.sleep(0.0005)
    ranks = job.ranks()
    counts["ended before"] = job.ended()
    # Of a training in several processes one is killed, or all are.
    job.kill(trials.rng.choice([[ranks[0]], [ranks[-1]], [job.pid, *ranks]] if ranks else [[job.pid]]))
    counts["partial at fault"] = has_partial(trials.out)


def terminated(trials: Trials, index: int, counts: Counter[str]) -> None:
    """SIGTERM to the process; of several processes, to one of them."""
    job = trials.job()
    trials.wait_until(job, trials.rng.random())
    counts["ended before"] = job.ended()
    os.kill(trials.rng.choice(job.ranks() or [job.pid]), signal.SIGTERM)
    job.wait()
    counts["partial at fault"] = has_partial(trials.out)


def group_terminated(trials: Trials, index: int, counts: Counter[str]) -> None:
    """SIGTERM to the whole process group, as from `timeout`."""
    job = trials.job()
    trials.wait_until(job, trials.rng.random())
    counts["ended before"] = job.ended()
    os.killpg(job.pid, signal.SIGTERM)
    job.wait()
    counts["partial at fault"] = has_partial(trials.out)


def disk_full(trials: Trials, index: int, counts: Counter[str]) -> None:
    """A disk on which a random part of the results has room, and then a larger one."""
    pages = sum(-(-len(data) // _PAGE) for data in trials.whole.values())
    size, kept = trials.rng.randint(2, pages) * _PAGE, trials.disk.with_name("kept")
    with _mounted(trials.disk, "-t", "tmpfs", "-o", f"size={size}", "none"):
        status = trials.job().wait()
        counts["partial at fault"] = has_partial(trials.out)
        if trials.out.exists():
            shutil.copytree(trials.out, kept)
    if kept.exists():
        kept.rename(trials.out)
    counts["ended before"] = status == 0
    trials.check_lines(counts, status)


def disk_read_only(trials: Trials, index: int, counts: Counter[str]) -> None:
    """A disk that can only be read from some time on; the job that finds it so must change nothing."""
    job = trials.job()
    trials.wait_until(job, trials.rng.random())
    job.kill([job.pid, *job.ranks()])
    before = content(trials.out)
    with _mounted(trials.disk, "--bind", str(trials.disk)):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(trials.disk)], check=True)
        status = trials.job().wait()
    counts["ended before"] = status == 0
    trials.check_lines(counts, status)
    counts["half-written"] = content(trials.out) != before


def second_job(trials: Trials, index: int, counts: Counter[str]) -> None:
    """A job with other settings starts at the same time in the same folder: one of them must be refused."""
    own, other = trials.job(), trials.job(trials.command.other, log="other.txt")
    statuses = own.wait(), other.wait()
    counts["mixed"] = statuses == (0, 0)
    if statuses[0] != 0 and trials.out.exists():  # then the folder belongs to the other one
        if statuses[1] == 0:
            counts["mixed"] += content(trials.out) != trials.other
        shutil.rmtree(trials.out)


def replaced(trials: Trials, index: int, counts: Counter[str]) -> None:
    """Image files are renamed over, written over or removed while the job reads them, and then restored."""
    assert trials.command.images is not None
    originals = {path: path.read_bytes() for path in sorted(trials.command.images.iterdir())}
    others = list(originals.values())
    job = trials.job()
    while not job.ended():
        path, new = trials.rng.choice(list(originals)), trials.rng.choice(others)
        match trials.rng.randrange(3):
            case 0:
                (beside := path.with_suffix(".new")).write_bytes(new)
                beside.rename(path)
            case 1:
                path.write_bytes(new)
            case 2:
                path.unlink(missing_ok=True)
        time.sleep(trials.rng.uniform(0, 0.01))
    status = job.wait()
    for path, data in originals.items():
        path.write_bytes(data)
    counts["traces"] = status not in (0, 1, 2) or "Traceback" in trials.log.read_text()


FAULTS = {
    "SIGKILL": Fault(disturb=killed),
    "SIGTERM": Fault(disturb=terminated),
    "SIGTERM to the group": Fault(disturb=group_terminated),
    "full disk": Fault(disturb=disk_full, needs_mounts=True),
    "read-only disk": Fault(disturb=disk_read_only, needs_mounts=True),
    "second job": Fault(disturb=second_job),
    "image replaced": Fault(
        disturb=replaced,
        is_for=lambda command: command.images is not None,
        is_same=_same_results,
        keeps_input=False,
    ),
    "other number of processes": Fault(
        disturb=killed,
        is_for=lambda command: command.words[:2] == ("train", "diffusion"),
        then=lambda command: 3 - command.num_processes,
        is_same=_same_course,
    ),
}
COLUMNS = ("trials", "ended before", "partial at fault")
COLUMNS += ("half-written", "not resumed", "different", "partial left", "traces", "mixed")


@contextlib.contextmanager
def _mounted(folder: Path, *words: str) -> Iterator[None]:
    """A mount at `folder` during the block."""
    subprocess.run(["mount", *words, str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def own_mounts() -> str:
    """Give this process mounts that no other process sees; the reason if the system does not allow it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS):
        return os.strerror(ctypes.get_errno())
    made = subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True, text=True)
    return made.stderr.strip()


def table(lines: list[dict[str, int | str]]) -> str:
    """The sums of all trials by command and fault, in Markdown."""
    sums: dict[tuple[int | str, int | str], Counter[str]] = {}
    for line in lines:
        counts = {name: int(line[name]) for name in COLUMNS if name in line}
        sums.setdefault((line["command"], line["fault"]), Counter()).update(counts)
    rows = [f"| command | fault | {' | '.join(COLUMNS)} |", f"| --- | --- |{' ---: |' * len(COLUMNS)}"]
    for (command, fault), counts in sums.items():
        rows.append(f"| {command} | {fault} | {' | '.join(str(counts[column]) for column in COLUMNS)} |")
    return "\n".join(rows)


def main() -> None:
    flags = read_flags(Flags)
    import_everything()
    torch.set_num_threads(1)  # a forked process cannot use the threads of its parent
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)  # so that it can wait for all processes of a killed agent
    if no_mounts := own_mounts():
        print(f"no trials of full and read-only disks, which need mounts of their own: {no_mounts}", file=sys.stderr)
    flags.results.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.loads(line) for line in flags.results.read_text().splitlines()] if flags.results.exists() else []
    done = {(line["command"], line["fault"], line["index"]) for line in lines}
    with tempfile.TemporaryDirectory() as folder, flags.results.open("a") as results, contextlib.ExitStack() as mounted:
        if not no_mounts:
            mounted.enter_context(_mounted(Path(folder), "-t", "tmpfs", "none"))
        commands = make_data(Path(folder) / "data")
        for number, (name, command) in enumerate(commands.items()):
            faults = {
                fault: kind
                for fault, kind in FAULTS.items()
                if kind.is_for(command) and not (kind.needs_mounts and no_mounts) and fault in (flags.faults or FAULTS)
            }
            missing = [
                (fault, index)
                for fault in faults
                for index in range(flags.trials if fault == "SIGKILL" else max(1, flags.trials // 5))
                if (name, fault, index) not in done and name in (flags.commands or commands)
            ]
            if not missing:
                continue
            trials = Trials(command, Path(folder) / str(number))
            for fault, index in missing:
                trials.rng.seed(f"{flags.seed} {name} {fault} {index}")
                begun = time.monotonic()
                counts = trials.run(faults[fault], index)
                line = {"command": name, "fault": fault, "index": index, "seconds": round(time.monotonic() - begun, 2)}
                lines.append(line | dict(counts))
                results.write(json.dumps(lines[-1]) + "\n")
                results.flush()
    print(table(lines))


if __name__ == "__main__":
    main()
