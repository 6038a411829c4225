"""Interrupt commands in many ways, let them go on, and count what was lost: `docs/reliability.md`.

    python benchmarks/faults.py --kills 50

Every trial runs a command in its own process on a small model and images of 8 px, interrupts it, and calls it again
until it ends. The files are then compared, byte for byte, with those of a call that was not interrupted. Half of the
SIGKILLs come at a random time, the other half as soon as a temporary file is visible. A disk is full for a process when
its files reach a limit (RLIMIT_FSIZE). The commands run in copies of this process (fork), which has imported
everything: so most of the time of a trial is the command itself.
"""

import argparse
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from rediffuse.cli.main import main as rediffuse
from rediffuse.diffusion.config import ProcessConfig
from rediffuse.models.config import UNetConfig
from rediffuse.models.superres import SuperResModel
from rediffuse.models.unet import UNetModel
from rediffuse.zoo.model import DiffusionModel, Provenance

COMPARED = {".png", ".gif", ".safetensors", ".pt", ".parquet"}
PARTIAL = re.compile(r"\..+\.[0-9a-f]{8}\.\w+")
"""Names of temporary files (`rediffuse.files.atomic_write`)."""
LIMITS = (100, 1_000, 5_000, 20_000, 100_000)
"""Bytes that a file may have on a full disk; each command writes larger files than some of them."""


@dataclass(frozen=True)
class Command:
    """A command and the settings in which a second job on the same folder differs."""

    words: tuple[str, ...]
    other: tuple[str, ...]


class Job:
    """A call of `rediffuse` in a process of its own."""

    def __init__(self, words: list[str], log: Path, most_bytes: int | None = None) -> None:
        self.log = log
        self.pid = os.fork()
        if self.pid == 0:
            with log.open("w") as output:
                for stream in (1, 2):
                    os.dup2(output.fileno(), stream)
            if most_bytes is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
            os._exit(rediffuse(words))  # without the exit handlers of the parent

    def ended(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def wait(self) -> int:
        """The exit status; negative for a signal."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def make_data(folder: Path) -> dict[str, Command]:
    """Images and models in `folder`, and the commands that use them, by name."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    for index in range(12):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / "images" / f"{index:02}.png")
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
    images, unet, upsampler = (str(folder / name) for name in ("images", "unet", "upsampler"))
    small = ("--batch-size", "2", "--device", "cpu")
    network = ("--image-size", "8", "--model-channels", "32", "--channel-mult", "1", "--num-res-blocks", "1")
    network += ("--attention-resolutions", "1")
    loop = ("--num-steps", "12", "--save-every", "2", "--evaluate-every", "4", "--log-every", "2", "--num-images", "2")
    train = ("--data", images, *network, *loop, "--num-sampling-steps", "2", *small)
    return {
        "dire": Command(("dire", images, "--model", unet, "--steps", "10", *small), ("--depth", "3")),
        "sample": Command(
            ("sample", "--model", unet, "--seeds", "0-11", "--progressive", "strip", *small, "--steps", "10"),
            ("--sampler", "ddpm"),
        ),
        "upscale": Command(("upscale", images, "--model", upsampler, "--steps", "10", *small), ("--seed", "7")),
        "train diffusion": Command(("train", "diffusion", *train), ("--seed", "7")),
        "train superres": Command(("train", "superres", *train, "--small-size", "4"), ("--seed", "7")),
    }


def content(out: Path) -> dict[str, bytes]:
    """The results in a folder: their bytes by name, without logs and temporary files."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.rglob("*")
        if path.suffix in COMPARED and not PARTIAL.fullmatch(path.name)
    }


def has_partial(out: Path) -> bool:
    return any(PARTIAL.fullmatch(path.name) for path in out.rglob(".*"))


class Trials:
    """The trials of one command, and the counts of their outcomes."""

    def __init__(self, command: Command, folder: Path, rng: random.Random) -> None:
        self.command, self.folder, self.rng = command, folder, rng
        self.log = folder / "log.txt"
        begun = time.monotonic()
        self.whole = self._reference("whole", ())
        self.seconds = time.monotonic() - begun
        self.other = self._reference("other", command.other)

    def _reference(self, name: str, more: tuple[str, ...]) -> dict[str, bytes]:
        out = self.folder / name
        status = self.job(out, more).wait()
        if status:
            sys.exit(f"{' '.join(self.command.words)}: exit status {status}\n{self.log.read_text()}")
        return content(out)

    def job(self, out: Path, more: tuple[str, ...] = (), *, log: str = "log.txt", most_bytes: int | None = None) -> Job:
        return Job([*self.command.words, *more, "--out", str(out)], self.folder / log, most_bytes)

    def run(self, trial: "Callable[[Trials, Path, Counter[str]], None]", count: int) -> Counter[str]:
        """Repeat a trial, finish its job each time, and count."""
        counts: Counter[str] = Counter(trials=0)
        for _ in range(count):
            out = self.folder / "out"
            trial(self, out, counts)
            counts["trials"] += 1
            if out.exists():  # a whole name must have whole content, also now
                now = content(out)
                counts["half-written"] += sum(self.whole[name] != now[name] for name in now.keys() & self.whole.keys())
            counts["not resumed"] += self.job(out).wait() != 0
            counts["different"] += content(out) != self.whole
            counts["partial left"] += has_partial(out)
            shutil.rmtree(out)
        return counts


def killed(trials: Trials, out: Path, counts: Counter[str]) -> None:
    """SIGKILL at a random time, or while a temporary file is visible."""
    job, waits_for_file = trials.job(out), counts["trials"] % 2 == 1
    until = time.monotonic() + trials.rng.uniform(0, trials.seconds)
    num_seen, wanted = 0, trials.rng.randrange(12)
    while not job.ended():
        if waits_for_file:
            num_seen += has_partial(out)
            if num_seen > wanted:
                break
        elif time.monotonic() > until:
            break
        time.sleep(0.001)
    else:
        counts["ended before"] += 1
    os.kill(job.pid, signal.SIGKILL)
    job.wait()


def terminated(trials: Trials, out: Path, counts: Counter[str]) -> None:
    """SIGTERM at a random time."""
    job = trials.job(out)
    until = time.monotonic() + trials.rng.uniform(0, trials.seconds)
    while time.monotonic() < until and not job.ended():
        time.sleep(0.001)
    counts["ended before"] += job.ended()
    os.kill(job.pid, signal.SIGTERM)
    job.wait()


def disk_full(trials: Trials, out: Path, counts: Counter[str]) -> None:
    """No file may grow beyond a random size."""
    status = trials.job(out, most_bytes=trials.rng.choice(LIMITS)).wait()
    counts["ended before"] += status == 0
    text = trials.log.read_text()
    counts["traces"] += "Traceback" in text or (status != 0 and "could not be written" not in text)


def second_job(trials: Trials, out: Path, counts: Counter[str]) -> None:
    """A job with other settings starts at the same time in the same folder: one of them must be refused."""
    own, other = trials.job(out), trials.job(out, trials.command.other, log="other.txt")
    statuses = own.wait(), other.wait()
    counts["both ended well"] += statuses == (0, 0)
    if statuses[0] != 0 and out.exists():  # then the folder belongs to the other one
        if statuses[1] == 0:
            counts["mixed"] += content(out) != trials.other
        shutil.rmtree(out)


TRIALS = {"SIGKILL": killed, "SIGTERM": terminated, "full disk": disk_full, "second job": second_job}
COLUMNS = ("trials", "ended before", "half-written", "not resumed", "different", "partial left", "traces", "mixed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="SIGKILLs of each command; of the others a fifth")
    parser.add_argument("--commands", help="names of commands, separated by commas; all if not given")
    parser.add_argument("--seed", type=int, default=0, help="random seed of times and sizes")
    args = parser.parse_args()
    torch.set_num_threads(1)  # a forked process cannot use the threads of its parent
    with tempfile.TemporaryDirectory() as folder:
        commands = make_data(Path(folder) / "data")
        print(f"| command | fault | {' | '.join(COLUMNS)} |\n| --- | --- |{' ---: |' * len(COLUMNS)}", flush=True)
        for name in args.commands.split(",") if args.commands else commands:
            (work := Path(folder) / name.replace(" ", "_")).mkdir()
            trials = Trials(commands[name], work, random.Random(args.seed))
            for fault, trial in TRIALS.items():
                counts = trials.run(trial, args.kills if trial is killed else max(1, args.kills // 5))
                counts["mixed"] += counts["both ended well"]
                print(f"| {name} | {fault} | {' | '.join(str(counts[column]) for column in COLUMNS)} |", flush=True)


if __name__ == "__main__":
    main()
