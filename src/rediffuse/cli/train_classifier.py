"""`rediffuse train classifier`: train with a recipe, whose fields flags can change, in a run folder."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from rediffuse.cli.flags import MISSING
from rediffuse.cli.result import Result
from rediffuse.cli.training import TRAINING, RunFlags, dry_run, listing_of, named_recipe, train_into
from rediffuse.training.config import ClassifierTraining
from rediffuse.training.recipes import CLASSIFIER_RECIPES

DEFAULT_RECIPE = "clothing32_classifier"


@dataclass(frozen=True, kw_only=True)
class TrainClassifierFlags(RunFlags):
    """Train a classifier of noisy images, which can guide a diffusion model of the same noise and image size.

    The recipe gives every default below, except `--out-channels`: it is the number of classes of the data. The same
    command continues from the last checkpoint. Exit status: 0 trained, 1 it diverged or the disk is full, 2 usage
    error, 128 + the signal that stopped it.
    """

    training: Annotated[ClassifierTraining, TRAINING]
    recipe: str = DEFAULT_RECIPE
    """The defaults of all other flags: clothing32_classifier."""


def defaults(words: Sequence[str]) -> TrainClassifierFlags:
    """The default flags: those of the recipe that `words` name.

    Raises:
        ConfigError: there is no such recipe.
    """
    name, training = named_recipe(words, CLASSIFIER_RECIPES, DEFAULT_RECIPE)
    return TrainClassifierFlags(training=training, out=MISSING, recipe=name)


def run(args: TrainClassifierFlags) -> Result:
    """Train, or with --dry-run return the cost."""
    config = args.training
    listing = listing_of(config)
    recipe = CLASSIFIER_RECIPES[args.recipe](config.data)
    if listing.classes and config.network.out_channels == recipe.network.out_channels:  # no flag changed it
        network = dataclasses.replace(config.network, out_channels=len(listing.classes))
        config = dataclasses.replace(config, network=network)
    if args.dry_run:
        return dry_run(config, "encoder", listing, args.init)
    from rediffuse.training.classifier import ClassifierTask

    return train_into(args, ClassifierTask(config), config)
