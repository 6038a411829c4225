"""`rediffuse convert`: convert weights to a model folder or a `.pt`, or a network of DIRE to a detector."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from rediffuse.cli.dire_detector import DETECTOR, DetectorFlags, convert_to_detector
from rediffuse.cli.flags import FLAT, Argument, CommandFlags
from rediffuse.cli.foreign import NETWORK, NetworkFlags
from rediffuse.cli.result import Result
from rediffuse.diffusion.config import Prediction, ProcessConfig, ScheduleName, Variance
from rediffuse.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from rediffuse.zoo.folder import Found


PROCESS = ("--schedule", "--num-timesteps", "--prediction", "--variance", "--rescale-timesteps")
GROUPS = {
    "Flags": ("--to", "--ema", "--precision", "--gates", "--force"),
    "Network, for a file of weights whose tensors do not determine it": NETWORK,
    "Diffusion process, for a file of weights": PROCESS,
    "Detector, for a ResNet-50 of the original DIRE": DETECTOR,
}


@dataclass(frozen=True, kw_only=True)
class ConvertFlags(CommandFlags):
    """Convert weights into a model folder, or into a .pt file for guided-diffusion's programs. No tensor is changed.

    With --to diffusers the result is a pipeline of diffusers with equal outputs.

    A ResNet-50 that the original DIRE trained becomes a folder for `rediffuse detect --detector`. This needs --model,
    the diffusion model of its training, and --data: images of known class that it was not trained on. They determine
    its probabilities and thresholds, because the original's threshold of 0.5 does not hold for other images. Exit
    status: 0 done, 1 some of these images could not be read, 2 usage error.
    """

    groups = GROUPS

    source: Annotated[str, Argument(positional=True)]
    """A model folder, a file of weights, a checkpoint of a training run, a published name, `default`, or owner/name on
    the hub."""
    destination: Annotated[Path, Argument(positional=True)]
    """A name that ends in .pt for a plain state_dict; any other name for a model folder, or for a detector."""
    to: Literal["diffusers"] | None = None
    """Write a pipeline of diffusers (UNet2DModel and DDPMScheduler); a model that it cannot express is an error."""
    ema: float | None = None
    """Of a training run's checkpoint: take the average of this rate, 0 for the weights themselves; the run's first
    average if not given."""
    precision: Literal["fp32", "fp16", "bf16"] | None = None
    """Number format on disk; unchanged if not given. With --data: inside the diffusion model, fp32 if not given."""
    gates: Path | None = None
    """Add spectral gates (frequency.safetensors) that were trained on the source."""
    network: Annotated[NetworkFlags, FLAT] = field(default_factory=NetworkFlags)
    schedule: ScheduleName | None = None
    """Noise schedule that the weights were trained with; the flags below have an effect only with this one."""
    num_timesteps: int = ProcessConfig.num_timesteps
    """Number of timesteps of the training chain."""
    prediction: Prediction = ProcessConfig.prediction
    """What the network predicts."""
    variance: Variance = ProcessConfig.variance
    """The variance: fixed or learned."""
    rescale_timesteps: bool = ProcessConfig.rescale_timesteps
    """The network's timestep is t * 1000 / T instead of t."""
    detector: Annotated[DetectorFlags, FLAT] = field(default_factory=DetectorFlags)
    force: bool = False
    """Replace the destination if it exists."""


def run(args: ConvertFlags) -> Result:
    """Convert, and return what was written."""
    if args.detector.data is not None:
        return _convert_detector(args)
    if args.detector.model is not None:
        raise ConfigError(f"--model {args.detector.model}: is only for a detector, which also needs --data")

    import torch

    from rediffuse.zoo.convert import convert
    from rediffuse.zoo.gates import with_gates

    dtypes = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, None: None}
    found = _find(args)
    if args.gates is not None:
        found = with_gates(found, args.gates)
    if found.layout.unknown and args.destination.suffix != ".pt":
        raise ConfigError(f"{args.source}: the tensors do not determine everything: give {found.layout.missing_flags}")
    convert(found, args.destination, dtype=dtypes[args.precision], to=args.to, force=args.force)
    return Result(
        text=f"{len(found.state)} tensors of {args.source}: {args.destination}",
        record={"source": args.source, "num_tensors": len(found.state), "destination": args.destination},
    )


def _find(args: ConvertFlags) -> "Found":
    from rediffuse.models.checkpoints import read_state_dict
    from rediffuse.training.extract import extract, read_run_state
    from rediffuse.zoo.find import find

    state = read_run_state(Path(args.source))
    if state is not None:
        return extract(state, Path(args.source), args.ema)
    if args.ema is not None:
        raise ConfigError(f"--ema {args.ema}: {args.source} is not a checkpoint of a training run")
    try:
        return find(args.source, args.network.given(), _process(args))
    except CheckpointError:
        if Path(args.source).is_file() and "layer4.2.conv3.weight" in read_state_dict(Path(args.source)):
            raise ConfigError(
                f"{args.source}: has the tensors of a ResNet-50; --model and --data make a detector of it"
            ) from None
        raise


def _convert_detector(args: ConvertFlags) -> Result:
    others = {**asdict(args.network), "to": args.to, "ema": args.ema, "gates": args.gates, "schedule": args.schedule}
    for name, value in others.items():
        if value is not None and name != "image_size":
            raise ConfigError(f"--{name.replace('_', '-')} {value}: has no meaning for a detector (--data)")
    return convert_to_detector(
        Path(args.source),
        args.destination,
        args.detector,
        map_size=args.network.image_size,
        precision=args.precision or "fp32",
        force=args.force,
    )


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
