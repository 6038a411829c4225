"""What the commands that train a network share: recipes, classes out of the data, the dry run, the run itself."""

import argparse
import dataclasses
import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import tyro

from rediffuse.errors import CheckpointError, ConfigError, InputError, nearest
from rediffuse.models.config import FrequencyConfig, Kind, UNetConfig
from rediffuse.records import dump
from rediffuse.training.config import ClassifierTraining, DiffusionTraining, SuperResTraining

if TYPE_CHECKING:
    from rediffuse.training.data import Listing
    from rediffuse.training.task import Task

T = TypeVar("T", bound=DiffusionTraining)
R = TypeVar("R", bound=DiffusionTraining | ClassifierTraining)


@dataclass(frozen=True, kw_only=True)
class RunFlags:
    """Where a training runs, and from where it begins."""

    out: Path
    """Run folder: config, log, checkpoints, samples and, at the end, the model."""
    init: str | None = None
    """Begin with the weights of this model wherever names and shapes fit, and print which did: a model folder, a file
    of weights, a checkpoint of a run, a published name, `default`, or owner/name on the hub. A resumed run goes on
    from its own weights."""
    gates: bool = False
    """Put spectral gates into the network: on the skip connections of a U-Net, after the levels of a classifier. With
    them come the flags --num-bands, --num-groups and --hidden."""
    dry_run: bool = False
    """Print the config and what it needs, and stop."""


def named_recipe(words: Sequence[str], recipes: Mapping[str, Callable[[str], R]], default: str) -> tuple[str, R]:
    """The recipe that the words of a call name, or the default one, with spectral gates where the words ask for them.

    Where gates alone are to be trained, network and process are those of the model that stays as it is.

    Raises:
        ConfigError: there is no such recipe, or that model does not say what it is.
        InputError, CheckpointError, FetchError: that model cannot be read, or is of another kind.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--recipe", default=default)
    parser.add_argument("--gates", action="store_true")
    parser.add_argument("--only")
    parser.add_argument("--init")
    given = parser.parse_known_args(list(words))[0]
    if given.recipe not in recipes:
        raise ConfigError(f"--recipe {given.recipe}: {', '.join(recipes)} are allowed{nearest(given.recipe, recipes)}")
    config = recipes[given.recipe](tyro.MISSING)
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
    assert found.process is not None  # otherwise it is unknown, and the line above raises
    return dataclasses.replace(config, network=network, process=found.process)


def listing_of(config: DiffusionTraining | ClassifierTraining) -> "Listing":
    """The images that the config trains on, and their classes."""
    from rediffuse.training.data import list_images

    return list_images(Path(config.data), Path(config.labels) if config.labels else None)


def with_classes(config: T, listing: "Listing") -> T:
    """The config, conditioned on the classes that the data have.

    Raises:
        InputError: they have none.
    """
    if not listing.classes:
        raise InputError(f"{config.data}: has no classes: --class-conditional needs subfolders or --labels")
    return dataclasses.replace(config, network=dataclasses.replace(config.network, num_classes=len(listing.classes)))


def print_estimate(
    config: DiffusionTraining | ClassifierTraining, kind: Kind, listing: "Listing", init: str | None
) -> None:
    """The dry run: the whole config, what a step costs, and what would be taken of `init`."""
    from rediffuse.training.estimate import estimate
    from rediffuse.training.initial import compare_with, read_initial
    from rediffuse.zoo.model import skeleton

    network = skeleton(kind, config.network)
    if isinstance(config, DiffusionTraining) and config.only == "frequency":
        network.freeze_all_but_gates()
    print(json.dumps(dump(config), indent=2))
    print(f"images               {len(listing.paths):,}")
    print(estimate(network, config.loop))
    if init is not None:
        print(compare_with(network.state_dict(), read_initial(init)))


def train_into(flags: RunFlags, task: "Task", config: DiffusionTraining | ClassifierTraining) -> int:
    """Train, say how it ended, and return the exit status."""
    from rediffuse.training.loop import train

    outcome = train(task, config.loop, flags.out, command=shlex.join(sys.argv), init=flags.init)
    if outcome.stopped_by is not None:
        print(f"stopped by {outcome.stopped_by.name} at step {outcome.step}; the same command goes on from there")
        return 128 + outcome.stopped_by
    print(f"trained {outcome.step} steps; the model is {flags.out / 'model'}")
    return 0
