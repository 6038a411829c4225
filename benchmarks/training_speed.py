"""Measure trainings from files: images per second of `rediffuse train`, of plain loops, and of its start.

    python benchmarks/training_speed.py --diffusers --out runs/training_speed
    python benchmarks/training_speed.py --num-files 100000 --out runs/training_speed

The first command trains the architecture of the embedded model on PNG files that it draws, by turns with `rediffuse
train` and by loops as other programs have them: they read a batch, then compute a step. `plain` is the network of this
package in float32 with the channels outermost; --reference takes a checkout of guided-diffusion, and --diffusers a
network of equal widths. Every round continues each training by some steps; the median of the rounds counts.

The second command measures the start of a training: the first list of so many small files and the list from the index
of a run, with their memory, beside the decoding of all files, which a start used to wait for.
"""

import resource
import statistics
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import torch
from script import read_flags
from torch import Tensor

from rediffuse.allocator import keep_freed_memory
from rediffuse.bench.measure import CLOCKS, Clock
from rediffuse.bench.parts import Options, TrainingStep, comparator_steps, write_images
from rediffuse.bench.subjects import architecture, trained_process
from rediffuse.errors import ConfigError
from rediffuse.images.crop import center_crop
from rediffuse.images.decode import decode
from rediffuse.images.encode import png_bytes
from rediffuse.images.tensors import to_tensor
from rediffuse.models.config import Precision
from rediffuse.training.config import DiffusionTraining, GridConfig, ImageConfig, LoopConfig
from rediffuse.training.diffusion import DiffusionTask
from rediffuse.training.listing import list_images
from rediffuse.training.loop import BATCHES_AHEAD, train
from rediffuse.zoo.model import DiffusionModel, load

FILES_PER_FOLDER = 100


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Measure trainings from files."""

    out: Path
    """Folder of the images, indexes and runs."""
    num_files: int | None = None
    """Measure the start with so many files, instead of the steps."""
    precisions: tuple[str, ...] = ("fp32", "bf16")
    """Those of rediffuse: fp32, bf16, fp16 (on a GPU)."""
    reference: Path | None = None
    """A checkout of guided-diffusion."""
    diffusers: bool = False
    """Also measure diffusers."""
    batch_size: int = 16
    num_images: int = 256
    """Files of the training, of 64 x 64 pixels."""
    num_steps: int = 10
    """Steps of a round."""
    rounds: int = 5
    clock: Clock = "wall"
    """wall, or cpu: the processor time of all threads."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "num_images", "num_steps", "rounds"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: at least 1 is needed")


def main(flags: Flags) -> None:
    if flags.num_files is not None:
        _print_starts(flags.out, flags.num_files)
        return
    keep_freed_memory()  # as the command `rediffuse train` does
    model = load("default")
    paths = write_images(flags.out / "images", flags.num_images, side=64)
    options = Options(batch_sizes=(flags.batch_size,), reference=flags.reference, diffusers=flags.diffusers)
    rounds: dict[str, Callable[[], float]] = {
        name: _PlainLoop(flags, model, step, paths) for name, step in comparator_steps(model, options).items()
    }
    for precision in ("fp32", "bf16", "fp16"):
        if precision in flags.precisions:
            rounds[f"rediffuse {precision}"] = _Training(flags, model, precision)
    seconds: dict[str, list[float]] = {name: [] for name in rounds}
    for number in range(flags.rounds + 1):
        for name, measure in rounds.items():
            elapsed = measure()
            if number:  # the first round warms up
                seconds[name].append(elapsed)
    first = next(iter(seconds.values()))
    print("| training | images per second | ratio |\n| --- | --- | --- |")
    for name, measured in seconds.items():
        rate = flags.num_steps * flags.batch_size / statistics.median(measured)
        ratio = statistics.median(theirs / own for own, theirs in zip(measured, first, strict=True))
        print(f"| {name} | {rate:.1f} | {ratio:.2f} |")


class _PlainLoop:
    """A loop that reads a batch, then computes a step; calls continue it."""

    def __init__(self, flags: Flags, model: DiffusionModel, step: TrainingStep, paths: list[Path]) -> None:
        self.flags, self.model, self.step, self.paths = flags, model, step, paths
        self.position = 0

    def __call__(self) -> float:
        now = CLOCKS[self.flags.clock]
        begin = now()
        for _ in range(self.flags.num_steps):
            self.step(self._read().to(self.model.device))
        _synchronize(self.model.device)
        return now() - begin

    def _read(self) -> Tensor:
        places = range(self.position, self.position + self.flags.batch_size)
        self.position = places.stop
        pixels = [decode(self.paths[place % len(self.paths)]).pixels for place in places]
        return to_tensor(np.stack([center_crop(image, self.model.image_size) for image in pixels]))


class _Training:
    """A run of `rediffuse train diffusion` that reads the files; calls continue it."""

    def __init__(self, flags: Flags, model: DiffusionModel, precision: Precision) -> None:
        self.flags, self.device, self.num_steps = flags, model.device, 0
        self.folder = flags.out / f"run_{precision}_{int(perf_counter() * 1e6)}"
        self.config = DiffusionTraining(
            data=str(flags.out / "images"),
            network=architecture(model),
            process=trained_process(model),
            loop=LoopConfig(num_steps=1, batch_size=flags.batch_size, precision=precision, keep=1),
            images=ImageConfig(cache_limit_mb=0),
            grid=GridConfig(num_images=1, num_sampling_steps=2),
        )

    def __call__(self) -> float:
        begin = self.num_steps + 1
        end = begin + self.flags.num_steps
        self.num_steps = end + BATCHES_AHEAD  # so that as many batches are read as computed
        times: dict[int, float] = {}

        def note_time(label: str, done: int, total: int, note: str = "", /) -> None:
            if label == "training" and done in (begin, end):
                _synchronize(self.device)
                times[done] = CLOCKS[self.flags.clock]()

        config = replace(self.config, loop=replace(self.config.loop, num_steps=self.num_steps))
        train(DiffusionTask(config), config.loop, self.folder, progress=note_time)
        return times[end] - times[begin]


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _print_starts(out: Path, number: int) -> None:
    folder, index = out / f"{number}_files", out / f"{number}.arrow"
    if not folder.exists():
        _write_small_files(folder, number)
    print("| of a start | seconds | processor time | memory |\n| --- | --- | --- | --- |")
    parts = {"first list of the files": _list, "list from the index": _read_index, "decoding all files": _decode}
    for name, part in parts.items():
        # A process of its own, whose memory nothing else has used.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            seconds, processor, num_bytes = pool.submit(_measured, part, folder, index).result()
        print(f"| {name} | {seconds:.2f} s | {processor:.2f} s | {num_bytes / 2**20:.0f} MB |", flush=True)


def _measured(part: Callable[[Path, Path], object], folder: Path, index: Path) -> tuple[float, float, int]:
    before, wall, processor = _peak_bytes(), perf_counter(), process_time()
    part(folder, index)
    return perf_counter() - wall, process_time() - processor, _peak_bytes() - before


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _list(folder: Path, index: Path) -> None:
    list_images(folder).write(index)


def _read_index(folder: Path, index: Path) -> None:
    assert list_images(folder, None, index).fingerprint


def _decode(folder: Path, index: Path) -> None:
    listing = list_images(folder, None, index)
    with ThreadPoolExecutor() as pool:
        for _ in pool.map(lambda place: decode(listing.path(place)).size, range(len(listing))):
            pass


def _write_small_files(folder: Path, number: int) -> None:
    rng = np.random.default_rng(0)
    contents = [png_bytes(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(64)]
    for place in range(number):
        path = folder / f"{place // FILES_PER_FOLDER:06d}" / f"{place:08d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents[place % len(contents)])


if __name__ == "__main__":
    main(read_flags(Flags))
