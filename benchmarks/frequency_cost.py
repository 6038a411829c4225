"""Measure the cost of spectral gates and presets in time, operations, memory and parameters.

    python benchmarks/frequency_cost.py --model default

Networks with and without them alternate in one run, so read the ratios. Other work on the machine disturbs them.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from script import read_flags

from rediffuse.models.config import FrequencyConfig
from rediffuse.models.flops import flops
from rediffuse.models.unet import UNetModel
from rediffuse.sampling.config import SamplingSettings
from rediffuse.training.config import LoopConfig
from rediffuse.training.estimate import estimate
from rediffuse.zoo.model import DiffusionModel, load, meta_network

HEADING: tuple[str, ...] = (
    "",
    "parameters, trained",
    "GFLOP a pass",
    "memory to train",
    "time of a pass",
    "time of a training step",
)
BASE = "without"


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Time forward passes and training steps."""

    model: str = "default"
    batch_size: int = 32
    rounds: int = 9
    """Number of measurements; the median is printed."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto takes a GPU where there is one."""


def rows(model: DiffusionModel, batch_size: int, rounds: int) -> list[tuple[str, ...]]:
    """The rows of the table, with its header; memory is an estimate for AdamW in float32 without averages."""
    config, device = model.network.config, model.device
    gated_config = replace(config, frequency=FrequencyConfig())
    gated, frozen = (UNetModel(gated_config).to(device, memory_format=torch.channels_last) for _ in range(2))  # type: ignore[call-overload]
    for gate in (*gated.frequency, *frozen.frequency):
        torch.nn.init.normal_(gate.get_parameter("offset"), std=0.1)  # zero gates would be skipped
    calls: dict[str, Callable[..., torch.Tensor]] = {
        BASE: model.network,
        "gates": gated,
        "gates, frozen base": frozen.freeze_all_but_gates(),
        "`freeu`": model.denoiser(SamplingSettings(frequency="freeu")),
        "`freeu:1.2`": model.denoiser(SamplingSettings(frequency="freeu:1.2")),
    }
    passes, steps = _seconds(model, calls, batch_size, rounds)
    loop = LoopConfig(num_steps=1, batch_size=batch_size, ema_rates=())
    table = [HEADING]
    for name in calls:
        network = meta_network("unet", config if name == BASE or name.startswith("`") else gated_config)
        if "frozen" in name:
            network.freeze_all_but_gates()
        needed = estimate(network, loop)
        memory = (needed.state_bytes + needed.activation_bytes) / 2**20
        table.append(
            (
                name,
                f"{needed.num_parameters:,}, {needed.num_trained:,}",
                f"{flops(network, (1, 3, config.image_size, config.image_size)) / 1e9:.3f}",
                f"{memory:.0f} MiB",
                *(f"{1000 * of[name]:.0f} ms ({of[name] / of[BASE]:.2f})" for of in (passes, steps)),
            )
        )
    return table


def _seconds(
    model: DiffusionModel, calls: dict[str, Callable[..., torch.Tensor]], batch_size: int, rounds: int
) -> tuple[dict[str, float], dict[str, float]]:
    """The median time of a pass without gradients, and of one with its backward pass."""
    side = model.image_size
    x = torch.randn(batch_size, 3, side, side, device=model.device)
    t = torch.full((batch_size,), 500, device=model.device)
    passes: dict[str, list[float]] = {name: [] for name in calls}
    steps: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):  # the first one warms up
        for name, call in calls.items():
            begun = time.perf_counter()
            with torch.inference_mode():
                call(x, t).sum().item()
            between = time.perf_counter()
            loss = call(x, t).square().mean()
            loss.backward()
            loss.item()
            if turn:
                passes[name].append(between - begun)
                steps[name].append(time.perf_counter() - between)
    medians = ({name: statistics.median(times) for name, times in of.items()} for of in (passes, steps))
    return next(medians), next(medians)


def main(args: Flags) -> None:
    model = load(args.model, device=args.device)
    where = f"{model.device}, torch {torch.__version__}"
    print(f"{args.model}: batches of {args.batch_size} at {model.image_size} px, {where}")
    for row in rows(model, args.batch_size, args.rounds):
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main(read_flags(Flags))
