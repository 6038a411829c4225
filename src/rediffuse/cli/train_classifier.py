"""`rediffuse train classifier`: a recipe, with any of its fields changed by flags, trained into a run folder."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import tyro

from rediffuse.cli.training import RunFlags, listing_of, named_recipe, print_estimate, train_into
from rediffuse.training.config import ClassifierTraining
from rediffuse.training.recipes import CLASSIFIER_RECIPES

DEFAULT_RECIPE = "clothing32_classifier"


@dataclass(frozen=True, kw_only=True)
class TrainClassifierFlags(RunFlags):
    """Train a classifier of noisy images, which can guide a diffusion model of the same noise and image size.

    The recipe gives every default below, but `--out-channels`: that is the number of classes of the data. The same
    command goes on from the last checkpoint. Exit status: 0 trained, 1 it diverged or the disk is full, 2 the call has
    to be mended, 128 + the signal that stopped it.
    """

    training: tyro.conf.OmitArgPrefixes[ClassifierTraining]
    recipe: str = DEFAULT_RECIPE
    """Where the defaults of all other flags come from: clothing32_classifier."""


def defaults(words: Sequence[str]) -> TrainClassifierFlags:
    """The flags that stand where `words` give none: those of the recipe that they name.

    Raises:
        ConfigError: there is no such recipe.
    """
    name, training = named_recipe(words, CLASSIFIER_RECIPES, DEFAULT_RECIPE)
    return TrainClassifierFlags(training=training, out=tyro.MISSING, recipe=name)


def run(args: TrainClassifierFlags) -> int:
    """Train, or say what it would take."""
    config = args.training
    listing = listing_of(config)
    recipe = CLASSIFIER_RECIPES[args.recipe](config.data)
    if listing.classes and config.network.out_channels == recipe.network.out_channels:  # no flag says otherwise
        network = dataclasses.replace(config.network, out_channels=len(listing.classes))
        config = dataclasses.replace(config, network=network)
    if args.dry_run:
        print_estimate(config, "encoder", listing, args.init)
        return 0
    from rediffuse.training.classifier import ClassifierTask

    return train_into(args, ClassifierTask(config), config)
