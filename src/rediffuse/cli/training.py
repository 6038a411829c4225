"""Common parts of the commands that train a network: recipes, classes of the data, the dry run, the run itself."""

import dataclasses
import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

from rediffuse.cli.console import bars
from rediffuse.cli.flags import MISSING, MODEL, Argument, CommandFlags, peek
from rediffuse.cli.result import Result
from rediffuse.errors import CheckpointError, ConfigError, InputError, nearest
from rediffuse.models.config import FrequencyConfig, Kind, UNetConfig
from rediffuse.records import dump
from rediffuse.training.config import ClassifierTraining, DiffusionTraining, SuperResTraining

if TYPE_CHECKING:
    from rediffuse.training.listing import Listing
    from rediffuse.training.task import Task

T = TypeVar("T", bound=DiffusionTraining)
R = TypeVar("R", bound=DiffusionTraining | ClassifierTraining)


GROUPS: Mapping[str, Sequence[str]] = {
    "Usual": (
        *("--data", "--out"),
        *("--recipe", "--dry-run", "--num-steps", "--batch-size", "--learning-rate", "--image-size", "--small-size"),
        *("--labels", "--class-conditional", "--validation", "--clean", "--init", "--device", "--precision", "--seed"),
    ),
    "Log, checkpoints and sample grids": (
        *("--log-every", "--save-every", "--keep", "--evaluate-every", "--validation-labels"),
        *("--num-images", "--num-sampling-steps"),
    ),
    "Memory and speed": ("--microbatch", "--use-checkpoint", "--cache-limit-mb", "--num-workers"),
    "Images": ("--random-flip", "--random-crop"),
    "Optimiser": (
        *("--warmup-steps", "--decay", "--weight-decay", "--clip-norm", "--ema-rates", "--max-bad-steps"),
        *("--loss", "--timestep-sampler"),
    ),
    "Network": (
        *("--model-channels", "--channel-mult", "--num-res-blocks", "--attention-resolutions", "--num-head-channels"),
        *("--num-heads", "--num-heads-upsample", "--dropout", "--num-classes", "--pool"),
        *("--use-scale-shift-norm", "--resblock-updown", "--conv-resample", "--use-new-attention-order"),
        *("--in-channels", "--out-channels", "--dims"),
    ),
    "Spectral gates": ("--gates", "--only", "--num-bands", "--num-groups", "--hidden"),
    "Diffusion process": ("--schedule", "--num-timesteps", "--prediction", "--variance", "--rescale-timesteps"),
}
"""The flags of all trainings of a network, the most important first."""

TRAINING = Argument(
    flat=True, metavars=tuple((name, "PATH") for name in ("data", "labels", "validation", "validation_labels"))
)
"""How the configuration of a training becomes flags."""


@dataclass(frozen=True, kw_only=True)
class RunFlags(CommandFlags):
    """The run folder of a training, and its initial weights."""

    groups = GROUPS

    out: Path
    """Run folder: config, log, checkpoints, samples and, at the end, the model."""
    init: Annotated[str | None, MODEL] = None
    """Start from the weights of this model where names and shapes fit: a model folder, a file of weights, a checkpoint,
    a published name, `default`, or owner/name on the hub."""
    gates: bool = False
    """Add spectral gates to the network: on the skip connections of a U-Net, after the levels of a classifier. The
    flags --num-bands, --num-groups and --hidden exist only with it."""
    dry_run: bool = False
    """Print the configuration and its cost, and stop."""


@dataclass(frozen=True, kw_only=True)
class _Deciding:
    """The flags on which the other flags and their defaults depend."""

    recipe: str
    gates: bool = False
    only: str | None = None
    init: str | None = None


def named_recipe(words: Sequence[str], recipes: Mapping[str, Callable[[str], R]], default: str) -> tuple[str, R]:
    """The recipe of the flag --recipe, or the default one, with spectral gates if --gates is given.

    With --only frequency, network and process are those of the model of --init, which is frozen.

    Raises:
        ConfigError: there is no such recipe, or fields of that model are unknown.
        InputError, CheckpointError, FetchError: that model cannot be read, or is of another kind.
    """
    given = peek(_Deciding, words, _Deciding(recipe=default))
    if given.recipe not in recipes:
        raise ConfigError(f"--recipe {given.recipe}: {', '.join(recipes)} are allowed{nearest(given.recipe, recipes)}")
    config = recipes[given.recipe](MISSING)
    if given.only == "frequency" and given.init is not None and isinstance(config, DiffusionTraining):
        config = _on_base(config, given.init)
    if (given.gates or given.only == "frequency") and config.network.frequency is None:
        network = dataclasses.replace(config.network, frequency=FrequencyConfig())
        config = dataclasses.replace(config, network=network)
    return given.recipe, config


def _on_base(config: T, source: str) -> T:
    from rediffuse.training.initial import find_initial

    found = find_initial(source)
    kind = "superres" if isinstance(config, SuperResTraining) else "unet"
    if found.layout.kind != kind:
        raise CheckpointError(f"--init {source}: is a {found.layout.kind}; a {kind} is needed")
    network = found.layout.config()
    assert isinstance(network, UNetConfig)
    assert found.process is not None  # if it is unknown, the line above raises
    return dataclasses.replace(config, network=network, process=found.process)


def listing_of(config: DiffusionTraining | ClassifierTraining) -> "Listing":
    """The training images of the config, and their classes."""
    from rediffuse.training.listing import list_images

    return list_images(Path(config.data), Path(config.labels) if config.labels else None)


def with_classes(config: T, listing: "Listing") -> T:
    """The config, conditioned on the classes of the data.

    Raises:
        InputError: the data have no classes.
    """
    if not listing.classes:
        raise InputError(f"{config.data}: has no classes: --class-conditional needs subfolders or --labels")
    return dataclasses.replace(config, network=dataclasses.replace(config.network, num_classes=len(listing.classes)))


def dry_run(config: DiffusionTraining | ClassifierTraining, kind: Kind, listing: "Listing", init: str | None) -> Result:
    """The config, the cost of a step, and the tensors of `init` that fit."""
    from rediffuse.training.estimate import estimate
    from rediffuse.training.initial import compare_with, read_initial
    from rediffuse.zoo.model import meta_network

    network = meta_network(kind, config.network)
    if isinstance(config, DiffusionTraining) and config.only == "frequency":
        network.freeze_all_but_gates()
    cost = estimate(network, config.loop)
    lines = [json.dumps(dump(config), indent=2), f"images               {len(listing):,}", str(cost)]
    record = {"config": dump(config), "num_images": len(listing), "cost": dump(cost)}
    if init is not None:
        transfer = compare_with(network.state_dict(), read_initial(init))
        lines.append(str(transfer))
        record["init"] = dump(transfer)
    return Result(text="\n".join(lines), record=record)


def train_into(flags: RunFlags, task: "Task", config: DiffusionTraining | ClassifierTraining) -> Result:
    """Train, and return how the training ended."""
    from rediffuse.training.loop import train

    with bars() as progress:
        outcome = train(task, config.loop, flags.out, command=shlex.join(sys.argv), init=flags.init, progress=progress)
    record = {"num_steps": outcome.step, "run": flags.out}
    if outcome.stopped_by is not None:
        name = outcome.stopped_by.name
        return Result(
            text=f"stopped by {name} at step {outcome.step}; the same command continues",
            record={**record, "stopped_by": name},
            status=128 + outcome.stopped_by,
        )
    model = flags.out / "model"
    return Result(text=f"trained {outcome.step} steps; the model is {model}", record={**record, "model": model})
