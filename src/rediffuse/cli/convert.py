"""`rediffuse convert`: weights from one form to another."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from rediffuse.cli.foreign import NetworkFlags
from rediffuse.diffusion.config import Prediction, ProcessConfig, ScheduleName, Variance
from rediffuse.errors import ConfigError

if TYPE_CHECKING:
    from rediffuse.zoo.folder import Found


@dataclass(frozen=True, kw_only=True)
class ConvertFlags:
    """Turn weights into a model folder, or into a .pt that guided-diffusion's programs read, tensor for tensor."""

    source: tyro.conf.Positional[str]
    """A model folder, a file of weights, a checkpoint of a training run, a published name, `default`, or owner/name on
    the hub."""
    destination: tyro.conf.Positional[Path]
    """A name that ends in .pt for a plain state_dict; any other for a model folder."""
    ema: float | None = None
    """Of a training run's checkpoint: the average of this rate, 0 for the weights themselves; the run's first average
    if not given."""
    precision: Literal["fp32", "fp16", "bf16"] | None = None
    """Number format on disk; as they are if not given."""
    gates: Path | None = None
    """A file of spectral gates (frequency.safetensors) that were trained on the source, to be put into it."""
    network: tyro.conf.OmitArgPrefixes[NetworkFlags] = field(default_factory=NetworkFlags)
    schedule: ScheduleName | None = None
    """Noise schedule that a file of weights was trained on. With it count the four flags below."""
    num_timesteps: int = ProcessConfig.num_timesteps
    """Length of that chain."""
    prediction: Prediction = ProcessConfig.prediction
    """What the network's output means."""
    variance: Variance = ProcessConfig.variance
    """Where the variance comes from."""
    rescale_timesteps: bool = ProcessConfig.rescale_timesteps
    """Whether the network is told t * 1000 / T instead of t."""
    force: bool = False
    """Replace the destination if it is there."""


def run(args: ConvertFlags) -> int:
    """Convert, and say what was written."""
    import torch

    from rediffuse.zoo.convert import convert
    from rediffuse.zoo.gates import with_gates

    dtypes = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, None: None}
    found = _find(args)
    if args.gates is not None:
        found = with_gates(found, args.gates)
    if found.layout.unknown and args.destination.suffix != ".pt":
        raise ConfigError(f"{args.source}: the tensors do not tell all: give {found.layout.missing_flags}")
    convert(found, args.destination, dtype=dtypes[args.precision], force=args.force)
    print(f"{len(found.state)} tensors of {args.source}: {args.destination}")
    return 0


def _find(args: ConvertFlags) -> "Found":
    from rediffuse.training.extract import extract, read_run_state
    from rediffuse.zoo.find import find

    state = read_run_state(Path(args.source))
    if state is not None:
        return extract(state, Path(args.source), args.ema)
    if args.ema is not None:
        raise ConfigError(f"--ema {args.ema}: {args.source} is no checkpoint of a training run")
    return find(args.source, args.network.told(), _process(args))


def _process(args: ConvertFlags) -> ProcessConfig | None:
    if args.schedule is None:
        return None
    return ProcessConfig(
        schedule=args.schedule,
        num_timesteps=args.num_timesteps,
        prediction=args.prediction,
        variance=args.variance,
        rescale_timesteps=args.rescale_timesteps,
    )
