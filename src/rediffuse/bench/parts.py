"""The parts of a benchmark, each a function that returns its rows."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from rediffuse.bench.measure import Clock, Timing, alternate, elapsed, matrix_rate
from rediffuse.bench.subjects import (
    OWN,
    PLAIN,
    Subject,
    architecture,
    diffusers,
    import_diffusers,
    import_reference,
    operations,
    own,
    plain,
    reference,
    reference_process,
    trained_process,
)
from rediffuse.detection.detect import detect_each
from rediffuse.detection.detector import load_detector
from rediffuse.diffusion.losses import training_losses
from rediffuse.dire.job import load_file
from rediffuse.dire.reconstruct import Reconstructor
from rediffuse.errors import ConfigError
from rediffuse.files import write_bytes
from rediffuse.images.encode import png_bytes
from rediffuse.images.find import find_images
from rediffuse.models.config import Precision
from rediffuse.training.config import DiffusionTraining, LoopConfig
from rediffuse.training.diffusion import DiffusionTask
from rediffuse.training.randomness import Place
from rediffuse.training.trainer import Trainer
from rediffuse.zoo.model import DiffusionModel

Part = Literal["forward", "round_trip", "train", "job", "start"]
PARTS: tuple[Part, ...] = get_args(Part)
TrainingStep = Callable[[Tensor], object]
"""One optimiser step on images x_0 (N, C, H, W) in [-1, 1] on the model's device."""
STEPS, DEPTH = 20, 5
"""The grid of the round trip, and the number of its steps."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure, and how."""

    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    batch_sizes: tuple[int, ...] = (1, 16)
    rounds: int = 5
    clock: Clock = "wall"
    reference: Path | None = None
    """A checkout of guided-diffusion."""
    diffusers: bool = False
    num_images: int = 16
    """Files of the job."""

    def __post_init__(self) -> None:
        for name in ("batch_sizes", "precisions"):
            if not getattr(self, name):
                raise ConfigError(f"{name}: at least one value is needed")
        for name in ("rounds", "num_images"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: at least 1 is needed")
        if min(self.batch_sizes) < 1:
            raise ConfigError(f"batch_sizes={min(self.batch_sizes)}: at least 1 is needed")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table."""

    part: Part
    subject: str
    batch_size: int
    seconds: float
    """Per image; of `start` per call."""
    ratio: float | None
    """How many times as fast it is as its comparator, the first row of the same part and batch; None for that row."""
    peak_bytes: int | None
    operations: int | None
    """Per image."""
    share: float | None
    """Operations per second as a share of this machine's matrix rate at the same precision."""


def measure(part: Part, model: DiffusionModel, options: Options) -> list[Row]:
    """The rows of one part.

    Raises:
        ConfigError: the job is asked for a model that the embedded detector was not trained with.
        InputError: the reference or diffusers is missing.
    """
    return list(_PARTS[part](model, options))


def subjects(model: DiffusionModel, options: Options) -> list[Subject]:
    """The plain path first, then the model at every precision, then the other programs."""
    found = [plain(model), *(own(model, precision) for precision in options.precisions)]
    for precision in options.precisions:
        if options.reference is not None:
            found.append(reference(model, options.reference, precision))
        if options.diffusers:
            found.append(diffusers(model, precision))
    return found


def _forward(model: DiffusionModel, options: Options) -> Iterator[Row]:
    found = subjects(model, options)
    for size in options.batch_sizes:
        x, t = _noise(model, size), torch.tensor(500, device=model.device).expand(size)
        calls = {one.title: partial(one.predict, x, t) for one in found}
        yield from _rows("forward", model, options, found, size, calls, num_calls=1)


def _round_trip(model: DiffusionModel, options: Options) -> Iterator[Row]:
    found = subjects(model, options)
    for size in options.batch_sizes:
        x = _noise(model, size).clamp(-1, 1)
        calls = {one.title: partial(one.round_trip, x, STEPS, DEPTH) for one in found}
        yield from _rows("round_trip", model, options, found, size, calls, num_calls=2 * DEPTH)


def _rows(
    part: Part,
    model: DiffusionModel,
    options: Options,
    found: Sequence[Subject],
    size: int,
    calls: Mapping[str, Callable[[], object]],
    *,
    num_calls: int,
) -> Iterator[Row]:
    with torch.inference_mode():
        timings = alternate(calls, rounds=options.rounds, clock=options.clock, device=model.device)
        rates: dict[Precision, float] = {}
        for one in found:
            rates[one.precision] = matrix_rate(one.precision, options.clock, model.device)
    counts: dict[str, int] = {}
    for one in found:
        timing = timings[one.title]
        # torch does not count the operations of packed convolutions, but those of the plain path, which are the same.
        counted = PLAIN if one.name == OWN else one.name
        if counted not in counts:
            counts[counted] = operations(one, tuple(_noise(model, 1).shape))
        count = num_calls * counts[counted]
        yield Row(
            part=part,
            subject=one.title,
            batch_size=size,
            seconds=timing.median / size,
            ratio=_ratio(timing, timings),
            peak_bytes=timing.peak_bytes,
            operations=count,
            share=count * size / timing.median / rates[one.precision],
        )


def _train(model: DiffusionModel, options: Options) -> Iterator[Row]:
    """One optimiser step with an average of the weights, on the largest of the batch sizes."""
    size = max(options.batch_sizes)
    x_0 = _noise(model, size).clamp(-1, 1)
    compared = comparator_steps(model, options).items()
    steps: dict[str, Callable[[], object]] = {name: partial(step, x_0) for name, step in compared}
    try:
        for precision in options.precisions:
            if precision != "fp16" or model.device.type != "cpu":  # torch trains in fp16 only on accelerators
                steps[f"rediffuse {precision}"] = _own_step(model, precision, size)
        timings = alternate(steps, rounds=options.rounds, clock=options.clock, device=model.device)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    for name, timing in timings.items():
        yield Row(
            part="train",
            subject=name,
            batch_size=size,
            seconds=timing.median / size,
            ratio=_ratio(timing, timings),
            peak_bytes=timing.peak_bytes,
            operations=None,
            share=None,
        )


def comparator_steps(model: DiffusionModel, options: Options) -> dict[str, TrainingStep]:
    """One optimiser step with an average of the weights by the plain path, and by the other programs; fp32.

    Raises:
        InputError: the reference or diffusers is missing.
    """
    steps = {f"{PLAIN} fp32": _plain_step(model, plain(model).network)}
    if options.reference is not None:
        network = reference(model, options.reference, "fp32").network
        steps["guided-diffusion fp32"] = _reference_step(model, network, options.reference)
    if options.diffusers:
        steps["diffusers fp32"] = _diffusers_step(model, diffusers(model, "fp32").network)
    return steps


def _own_step(model: DiffusionModel, precision: Precision, size: int) -> Callable[[], object]:
    AcceleratorState._reset_state(reset_partial_state=True)  # otherwise the precision of the one before stays
    loop = LoopConfig(num_steps=1, batch_size=size, precision=precision)
    config = architecture(model)
    task = DiffusionTask(DiffusionTraining(data="", network=config, process=trained_process(model), loop=loop))
    mixed = "no" if precision == "fp32" else precision
    trainer = Trainer(task, loop, Accelerator(cpu=model.device.type == "cpu", mixed_precision=mixed))
    x_0 = _noise(model, size).clamp(-1, 1).cpu()
    labels = {} if model.num_classes is None else {"y": torch.zeros(size, dtype=torch.int64)}

    def step() -> None:
        first = trainer.step * size
        batch = task.draw({"x_0": x_0, **labels}, Place(0, trainer.step, size, range(first, first + size)))
        trainer.train_step({name: value.to(model.device) for name, value in batch.items()})

    return step


def _plain_step(model: DiffusionModel, network: nn.Module) -> TrainingStep:
    process = model.process()

    def loss(x_0: Tensor, t: Tensor) -> Tensor:
        return training_losses(process, network, x_0, t, torch.randn_like(x_0), "mse", _labels(model, len(x_0)))["loss"]

    return _step(model, network, loss, _lerp_average(network))


def _reference_step(model: DiffusionModel, network: nn.Module, folder: Path) -> TrainingStep:
    """The step of its train_util, without its log."""
    process = reference_process(model, folder, "")
    update_ema = import_reference(folder, "nn").update_ema
    average = [weight.detach().clone() for weight in network.parameters()]

    def loss(x_0: Tensor, t: Tensor) -> Tensor:
        return process.training_losses(network, x_0, t, model_kwargs=_labels(model, len(x_0)))["loss"]

    return _step(model, network, loss, lambda: update_ema(average, network.parameters(), rate=0.9999))


def _diffusers_step(model: DiffusionModel, network: nn.Module) -> TrainingStep:
    """The step of its example `train_unconditional.py`: noise, mean square error of eps, and its EMAModel."""
    library = import_diffusers()
    scheduler = library.DDPMScheduler(num_train_timesteps=trained_process(model).num_timesteps)
    average = library.training_utils.EMAModel(network.parameters(), decay=0.9999)

    def loss(x_0: Tensor, t: Tensor) -> Tensor:
        noise = torch.randn_like(x_0)
        eps = network(scheduler.add_noise(x_0, noise, t), t, return_dict=False)[0][:, : x_0.shape[1]]
        return (eps - noise).square().flatten(1).mean(1)

    return _step(model, network, loss, lambda: average.step(network.parameters()))


def _step(
    model: DiffusionModel,
    network: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    update_average: Callable[[], object],
) -> TrainingStep:
    network.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)

    def step(x_0: Tensor) -> None:
        optimizer.zero_grad()
        t = torch.randint(trained_process(model).num_timesteps, (len(x_0),), device=model.device)
        loss(x_0, t).mean().backward()
        optimizer.step()
        update_average()

    return step


def _lerp_average(network: nn.Module) -> Callable[[], object]:
    average = [weight.detach().clone() for weight in network.parameters()]

    def update() -> None:
        for mean, weight in zip(average, network.parameters(), strict=True):
            mean.lerp_(weight.detach(), 1 - 0.9999)

    return update


def _job(model: DiffusionModel, options: Options) -> Iterator[Row]:
    """From files to verdicts, beside the calls of the network alone, one batch after the other."""
    detector, size = load_detector(), max(options.batch_sizes)
    if detector.settings.model_sha256 != model.provenance.sha256:
        raise ConfigError(f"job: {model.provenance.source} has no embedded detector; only the model default has")
    with TemporaryDirectory() as folder:
        files = find_images([str(path) for path in write_images(Path(folder), options.num_images)])

        def job() -> None:
            for _ in detect_each(
                files,
                model=model,
                detector=detector,
                max_false_alarms=None,
                max_misses=None,
                stability=False,
                batch_size=size,
                workers=2,
                device=model.device,
                precision="auto",
                explain=False,
                evidence=False,
            ):
                pass

        settings = detector.settings_on(model.device, "auto")
        reconstruct = Reconstructor(model, settings)
        inputs = [one.x_0 for one in (load_file(found, settings) for found in files) if one.x_0 is not None]

        def network() -> None:
            for x_0 in torch.cat(inputs).split(size):
                reconstruct(x_0)

        calls = {"network alone": network, "job": job}
        timings = alternate(calls, rounds=options.rounds, clock=options.clock, device=model.device)
    for name, timing in timings.items():
        yield Row(
            part="job",
            subject=name,
            batch_size=size,
            seconds=timing.median / len(files),
            ratio=_ratio(timing, timings),
            peak_bytes=timing.peak_bytes,
            operations=None,
            share=None,
        )


def _start(model: DiffusionModel, options: Options) -> Iterator[Row]:
    """The command `rediffuse detect` in a new process: with one file, with all files, and with evidence."""
    with TemporaryDirectory() as folder:
        files = [str(path) for path in write_images(Path(folder) / "images", options.num_images)]
        calls = {
            f"detect {len(files)} files": files,
            "detect 1 file": files[:1],
            f"detect {len(files)} files --evidence": [*files, "--force", "--evidence", str(Path(folder) / "evidence")],
        }
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(options.rounds):
            for name, words in calls.items():
                seconds[name].append(_command_seconds(["detect", "-q", *words], options.clock, model))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    timings = {name: _timing(values) for name, values in seconds.items()}
    for name, timing in timings.items():
        yield Row(
            part="start",
            subject=name,
            batch_size=1,
            seconds=timing.median,
            ratio=_ratio(timing, timings),
            peak_bytes=peak,
            operations=None,
            share=None,
        )


def _command_seconds(words: list[str], clock: Clock, model: DiffusionModel) -> float:
    def children() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    before = children()
    command = [sys.executable, "-m", "rediffuse", *words, "--device", str(model.device)]
    wall = elapsed(
        lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ), "wall", model.device
    )
    return wall if clock == "wall" else children() - before


def write_images(folder: Path, number: int, side: int = 256) -> list[Path]:
    """PNG files of smooth random colours with noise; returns their paths."""
    rng = np.random.default_rng(0)
    paths = []
    for index in range(number):
        coarse = rng.integers(0, 255, (side // 16, side // 16, 3)).repeat(16, 0).repeat(16, 1)
        pixels = np.clip(coarse + rng.normal(0, 12, coarse.shape), 0, 255).astype(np.uint8)
        paths.append(folder / f"{index:04d}.png")
        write_bytes(paths[-1], png_bytes(pixels))
    return paths


def _timing(seconds: Sequence[float]) -> Timing:
    return Timing(seconds=tuple(seconds), peak_bytes=None)


def _ratio(timing: Timing, timings: Mapping[str, Timing]) -> float | None:
    first = next(iter(timings.values()))
    return None if timing is first else timing.ratio_to(first)


def _noise(model: DiffusionModel, size: int) -> Tensor:
    config = model.network.config
    generator = torch.Generator().manual_seed(0)
    shape = (size, config.in_channels, *(config.image_size,) * config.dims)
    return torch.randn(shape, generator=generator).to(model.device)


def _labels(model: DiffusionModel, size: int) -> dict[str, Any]:
    if model.num_classes is None:
        return {}
    return {"y": torch.zeros(size, dtype=torch.int64, device=model.device)}


_PARTS: Mapping[Part, Callable[[DiffusionModel, Options], Iterator[Row]]] = {
    "forward": _forward,
    "round_trip": _round_trip,
    "train": _train,
    "job": _job,
    "start": _start,
}
