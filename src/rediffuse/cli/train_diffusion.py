"""`rediffuse train diffusion`: a recipe, with any of its fields changed by flags, trained into a run folder."""

import argparse
import dataclasses
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from rediffuse.errors import ConfigError, InputError, nearest
from rediffuse.records import dump
from rediffuse.training.config import DiffusionTraining
from rediffuse.training.recipes import RECIPES

DEFAULT_RECIPE = "clothing32"


@dataclass(frozen=True, kw_only=True)
class TrainDiffusionFlags:
    """Train a diffusion model on a folder of images.

    The recipe gives every default below: `--recipe NAME --help` shows those of another one. The same command goes on
    from the last checkpoint. Exit status: 0 trained, 1 it diverged or the disk is full, 2 the call has to be mended,
    128 + the signal that stopped it.
    """

    training: tyro.conf.OmitArgPrefixes[DiffusionTraining]
    out: Path
    """Run folder: config, log, checkpoints, samples and, at the end, the model."""
    recipe: str = DEFAULT_RECIPE
    """Where the defaults of all other flags come from: clothing32, imagenet64."""
    class_conditional: bool = False
    """Condition on the classes that the data have."""
    dry_run: bool = False
    """Print the config and what it needs, and stop."""


def defaults(words: Sequence[str]) -> TrainDiffusionFlags:
    """The flags that stand where `words` give none: those of the recipe that they name.

    Raises:
        ConfigError: there is no such recipe.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--recipe", default=DEFAULT_RECIPE)
    name = parser.parse_known_args(list(words))[0].recipe
    if name not in RECIPES:
        raise ConfigError(f"--recipe {name}: {', '.join(RECIPES)} are allowed{nearest(name, RECIPES)}")
    return TrainDiffusionFlags(training=RECIPES[name](tyro.MISSING), out=tyro.MISSING, recipe=name)


def run(args: TrainDiffusionFlags) -> int:
    """Train, or say what it would take."""
    from rediffuse.training.data import list_images

    config = args.training
    listing = list_images(Path(config.data), Path(config.labels) if config.labels else None)
    if args.class_conditional:
        if not listing.classes:
            raise InputError(f"{config.data}: has no classes: --class-conditional needs subfolders or --labels")
        network = dataclasses.replace(config.network, num_classes=len(listing.classes))
        config = dataclasses.replace(config, network=network)
    if args.dry_run:
        from rediffuse.training.estimate import estimate

        print(json.dumps(dump(config), indent=2))
        print(f"images               {len(listing.paths):,}")
        print(estimate(config.network, config.loop))
        return 0

    from rediffuse.training.diffusion import DiffusionTask
    from rediffuse.training.loop import train

    outcome = train(DiffusionTask(config), config.loop, args.out, command=shlex.join(sys.argv))
    if outcome.stopped_by is not None:
        print(f"stopped by {outcome.stopped_by.name} at step {outcome.step}; the same command goes on from there")
        return 128 + outcome.stopped_by
    print(f"trained {outcome.step} steps; the model is {args.out / 'model'}")
    return 0
