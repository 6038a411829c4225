"""Compare networks that are trained with equal numbers of operations by their error of eps at low noise.

    python benchmarks/window_data.py --clothing CLOTHING --wild WILD --size 32 --out WINDOWS32
    python benchmarks/window_data.py --clothing CLOTHING --wild WILD --size 64 --out WINDOWS64
    python benchmarks/network_search.py --windows32 WINDOWS32 --windows64 WINDOWS64 --out FOLDER

All candidates are compared on the same pixels with the same noise: validation windows of 64 px, which are cut into four
for networks of 32 px. The error is the mean of (eps - predicted eps)^2 per value. The last column is its geometric mean
over the timesteps; the table is sorted by it. A stopped call can be repeated and continues.
"""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from script import read_flags
from torch import Tensor
from tqdm import tqdm

from rediffuse.diffusion.noise import PerSampleNoise
from rediffuse.files import write_bytes
from rediffuse.images.decode import decode
from rediffuse.images.find import find_images
from rediffuse.images.tensors import to_tensor
from rediffuse.models.config import UNetConfig
from rediffuse.models.flops import flops
from rediffuse.training.config import DiffusionTraining, GridConfig
from rediffuse.training.diffusion import DiffusionTask
from rediffuse.training.loop import train
from rediffuse.training.recipes import clothing32
from rediffuse.zoo.model import DiffusionModel, load, meta_network

TIMESTEPS = (5, 10, 20, 50, 100, 200)
"""The timesteps of 1,000 at which the error is measured, least noise first."""
KINDS = ("clothing", "cameras")
SIZE = 64
"""Side of the validation windows of all candidates, in pixels."""


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Train the candidates that are not trained yet, and compare all."""

    windows32: Path
    windows64: Path | None = None
    """Folder of `window_data.py --size 64`; without it the candidates of 64 px are left out."""
    out: Path
    operations: float = 8e12
    """Operations of the training of one candidate, forward and backward, counted and not measured."""
    pixels: int = 8192
    """Pixels per training step; the batch size is this number divided by the pixels of an image."""
    learning_rate: float = 7e-4
    num_images: int = 4096
    """Number of training windows, evenly spread; so few steps do not need more."""
    num_windows: int = 64
    """Number of validation windows of each kind, evenly spread."""
    candidates: tuple[str, ...] | None = None
    """Names of the candidates; all if not given."""
    models: tuple[str, ...] = ("default",)
    """Trained models to compare with the candidates: names, folders or files."""
    device: str = "auto"


def main(args: Flags) -> None:
    rows = {name: measured(args, load(name, device=args.device)) for name in args.models}
    for name, config in configs(args).items():
        if args.candidates is None or name in args.candidates:
            rows[name] = kept(args, name, lambda name=name, config=config: measured(args, trained(args, name, config)))
    show(rows)


def configs(args: Flags) -> dict[str, DiffusionTraining]:
    """The candidates: each differs from `base`, the recipe clothing32, as its name says."""
    base = replace(clothing32(str(args.windows32 / "train")), labels=evenly_chosen(args, args.windows32))
    network = base.network
    found = {
        "base": base,
        "no attention": replace(base, network=replace(network, attention_resolutions=())),
        "two blocks": replace(base, network=replace(network, num_res_blocks=2)),
        "64 channels": replace(base, network=replace(network, model_channels=64, channel_mult=(1, 1, 2))),
        "low noise": replace(base, timestep_sampler="low_noise"),
    }
    if args.windows64 is not None:
        large = replace(network, image_size=64, channel_mult=(1, 2, 2, 4), attention_resolutions=(8,))
        labels = evenly_chosen(args, args.windows64)
        found["64 px"] = replace(base, data=str(args.windows64 / "train"), labels=labels, network=large)
    return found


def evenly_chosen(args: Flags, windows: Path) -> str:
    """A file of labels that names `num_images` of the training windows, all of one class."""
    names = [image.name for image in find_images([windows / "train"])]
    chosen = np.linspace(0, len(names) - 1, min(args.num_images, len(names))).round().astype(int)
    path = args.out / f"{windows.name}.csv"
    write_bytes(path, "\n".join(["path,label", *(f"{names[index]},window" for index in chosen), ""]).encode())
    return str(path)


def trained(args: Flags, name: str, config: DiffusionTraining) -> DiffusionModel:
    """The candidate, trained for as many steps as the number of operations allows."""
    size = config.network.image_size
    batch_size = args.pixels // size**2
    num_steps = round(args.operations / (3 * batch_size * operations(config.network)))
    loop = replace(
        config.loop,
        num_steps=num_steps,
        batch_size=batch_size,
        learning_rate=args.learning_rate,
        warmup_steps=num_steps // 20,
        ema_rates=(0.95,),
        save_every=50,
        log_every=25,
        evaluate_every=num_steps,
        device="cpu" if args.device == "cpu" else "auto",
    )
    run = args.out / name.replace(" ", "_")
    if not (run / "model" / "config.json").exists():
        no_samples = GridConfig(num_images=1, num_sampling_steps=2)
        outcome = train(DiffusionTask(replace(config, loop=loop, grid=no_samples)), loop, run)
        if outcome.stopped_by is not None:
            raise SystemExit(128 + outcome.stopped_by)
    return load(str(run / "model"), device=args.device)


def operations(network: UNetConfig) -> int:
    """Operations of one forward pass on one image."""
    return flops(meta_network("unet", network), (1, 3, network.image_size, network.image_size))


def measured(args: Flags, model: DiffusionModel) -> dict[str, object]:
    """The row of a model in the table."""
    config = model.network.config
    assert isinstance(config, UNetConfig)
    return {
        "parameters": sum(parameter.numel() for parameter in model.network.parameters()),
        "operations per pixel": operations(config) / config.image_size**2,
        "errors": {kind: errors(args, model, kind) for kind in KINDS},
    }


def errors(args: Flags, model: DiffusionModel, kind: str) -> list[float]:
    """The mean squared error of eps at each of `TIMESTEPS`."""
    paths = [image.path for image in find_images([args.windows32 / "validation" / kind])]
    evenly = np.linspace(0, len(paths) - 1, min(args.num_windows, len(paths))).round().astype(int)
    x_0 = to_tensor(np.stack([decode(paths[index]).pixels for index in evenly]))
    noise = PerSampleNoise(range(len(x_0)))(x_0)
    process = model.process()
    found = []
    for timestep in tqdm(TIMESTEPS, f"{kind}, timesteps", leave=False):
        total = 0.0
        for part in torch.arange(len(x_0)).split(8):
            clean, eps = (quarters(values[part], model.image_size).to(model.device) for values in (x_0, noise))
            t = torch.full((len(clean),), timestep, device=model.device)
            with torch.inference_mode():
                output = process.call(model.network, process.q_sample(clean, t, eps), t, {})
            total += (output[:, :3] - eps).square().double().sum().item()
        found.append(total / x_0.numel())
    return found


def quarters(values: Tensor, size: int) -> Tensor:
    """Cut images (N, C, H, W) into squares of `size` pixels, (N * H / size * W / size, C, size, size)."""
    num_channels = values.shape[1]
    squares = values.unfold(2, size, size).unfold(3, size, size)  # (N, C, rows, columns, size, size)
    return squares.movedim(1, 3).reshape(-1, num_channels, size, size)


def kept(args: Flags, name: str, measure) -> dict:
    """The result of `measure`, read from a file if an earlier call computed it."""
    path = args.out / f"{name.replace(' ', '_')}.json"
    if not path.exists():
        write_bytes(path, json.dumps(measure()).encode())
    return json.loads(path.read_text())


def show(rows: dict[str, dict]) -> None:
    """Print the table, sorted by the error on held-out clothing."""
    steps = " | ".join(f"t={t}" for t in TIMESTEPS)
    print(f"\n| network | parameters | operations per pixel | images | {steps} | mean |")
    print("| --- " * (5 + len(TIMESTEPS)) + "|")
    for name, row in sorted(rows.items(), key=lambda item: geometric_mean(item[1]["errors"]["clothing"])):
        for kind, found in row["errors"].items():
            values = " | ".join(f"{value:.4f}" for value in [*found, geometric_mean(found)])
            cost = f"{row['parameters'] / 1e6:.2f} M | {row['operations per pixel'] / 1e3:.0f} k"
            print(f"| {name} | {cost} | {kind} | {values} |", flush=True)


def geometric_mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


if __name__ == "__main__":
    main(read_flags(Flags))
