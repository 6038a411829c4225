"""`rediffuse train diffusion`: a recipe, with any of its fields changed by flags, trained into a run folder."""

from collections.abc import Sequence
from dataclasses import dataclass

import tyro

from rediffuse.cli.training import RunFlags, listing_of, named_recipe, print_estimate, train_into, with_classes
from rediffuse.training.config import DiffusionTraining
from rediffuse.training.recipes import RECIPES

DEFAULT_RECIPE = "clothing32"


@dataclass(frozen=True, kw_only=True)
class TrainDiffusionFlags(RunFlags):
    """Train a diffusion model on a folder of images.

    The recipe gives every default below: `--recipe NAME --help` shows those of another one. The same command goes on
    from the last checkpoint. Exit status: 0 trained, 1 it diverged or the disk is full, 2 the call has to be mended,
    128 + the signal that stopped it.
    """

    training: tyro.conf.OmitArgPrefixes[DiffusionTraining]
    recipe: str = DEFAULT_RECIPE
    """Where the defaults of all other flags come from: clothing32, clothing64, imagenet64."""
    class_conditional: bool = False
    """Condition on the classes that the data have."""


def defaults(words: Sequence[str]) -> TrainDiffusionFlags:
    """The flags that stand where `words` give none: those of the recipe that they name.

    Raises:
        ConfigError: there is no such recipe.
    """
    name, training = named_recipe(words, RECIPES, DEFAULT_RECIPE)
    return TrainDiffusionFlags(training=training, out=tyro.MISSING, recipe=name)


def run(args: TrainDiffusionFlags) -> int:
    """Train, or say what it would take."""
    listing = listing_of(args.training)
    config = with_classes(args.training, listing) if args.class_conditional else args.training
    if args.dry_run:
        print_estimate(config, "unet", listing, args.init)
        return 0
    from rediffuse.training.diffusion import DiffusionTask

    return train_into(args, DiffusionTask(config), config)
