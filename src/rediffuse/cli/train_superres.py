"""`rediffuse train superres`: a recipe, with any of its fields changed by flags, trained into a run folder."""

from collections.abc import Sequence
from dataclasses import dataclass

import tyro

from rediffuse.cli.training import RunFlags, listing_of, named_recipe, print_estimate, train_into, with_classes
from rediffuse.training.config import SuperResTraining
from rediffuse.training.recipes import SUPERRES_RECIPES

DEFAULT_RECIPE = "clothing64_superres"


@dataclass(frozen=True, kw_only=True)
class TrainSuperResFlags(RunFlags):
    """Train a super-resolution model on a folder of images, which are made small for it.

    The recipe gives every default below. The same command goes on from the last checkpoint. Exit status: 0 trained,
    1 it diverged or the disk is full, 2 the call has to be mended, 128 + the signal that stopped it.
    """

    training: tyro.conf.OmitArgPrefixes[SuperResTraining]
    recipe: str = DEFAULT_RECIPE
    """Where the defaults of all other flags come from: clothing64_superres."""
    class_conditional: bool = False
    """Condition on the classes that the data have."""


def defaults(words: Sequence[str]) -> TrainSuperResFlags:
    """The flags that stand where `words` give none: those of the recipe that they name.

    Raises:
        ConfigError: there is no such recipe.
    """
    name, training = named_recipe(words, SUPERRES_RECIPES, DEFAULT_RECIPE)
    return TrainSuperResFlags(training=training, out=tyro.MISSING, recipe=name)


def run(args: TrainSuperResFlags) -> int:
    """Train, or say what it would take."""
    listing = listing_of(args.training)
    config = with_classes(args.training, listing) if args.class_conditional else args.training
    if args.dry_run:
        print_estimate(config, "superres", listing, args.init)
        return 0
    from rediffuse.training.superres import SuperResTask

    return train_into(args, SuperResTask(config), config)
