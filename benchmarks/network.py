"""Measure how many images per second a model's network computes, with two memory layouts.

    python benchmarks/network.py --model default --batch-sizes 1 16 64

Both layouts alternate in one run, so read the ratio. Other work on the machine disturbs it.
"""

import platform
import statistics
import time
from dataclasses import dataclass

import torch
from script import read_flags

from rediffuse.models.flops import flops
from rediffuse.zoo.model import DiffusionModel, load

LAYOUTS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Time forward passes."""

    model: str = "default"
    batch_sizes: tuple[int, ...] = (1, 16, 64)
    rounds: int = 7
    """Number of measurements; the median is printed."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto takes a GPU where there is one."""


def main(args: Flags) -> None:
    model = load(args.model, device=args.device)
    operations = flops(model.network, (1, 3, model.image_size, model.image_size))
    print(f"{args.model}: {model.image_size} px, {operations / 1e9:.2f} GFLOP per image and pass")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {model.device}, {platform.processor()}")
    print(f"{'batch':>6}  {'contiguous':>12}  {'channels last':>13}  {'ratio':>5}   (images per second)")
    for size in args.batch_sizes:
        rates = compare(model, size, args.rounds)
        contiguous, channels_last = (rates[name] for name in LAYOUTS)
        print(f"{size:6d}  {contiguous:12.1f}  {channels_last:13.1f}  {channels_last / contiguous:5.2f}")


def compare(model: DiffusionModel, size: int, rounds: int) -> dict[str, float]:
    """Images per second by layout."""
    x = torch.randn(size, 3, model.image_size, model.image_size, device=model.device)
    t = torch.full((size,), 500, device=model.device)
    y = {} if model.num_classes is None else {"y": torch.zeros(size, dtype=torch.int64, device=model.device)}
    seconds: dict[str, list[float]] = {name: [] for name in LAYOUTS}
    with torch.inference_mode():
        for number in range(rounds + 1):  # the first round warms up
            for name, layout in LAYOUTS.items():
                model.network.to(memory_format=layout)
                start = time.perf_counter()
                model.network(x, t, **y).sum().item()  # copying a number to the host waits for the GPU
                if number:
                    seconds[name].append(time.perf_counter() - start)
    return {name: size / statistics.median(times) for name, times in seconds.items()}


if __name__ == "__main__":
    main(read_flags(Flags))
