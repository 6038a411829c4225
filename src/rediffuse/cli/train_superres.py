"""`rediffuse train superres`: train with a recipe, whose fields flags can change, in a run folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from rediffuse.cli.flags import MISSING
from rediffuse.cli.result import Result
from rediffuse.cli.training import TRAINING, RunFlags, dry_run, listing_of, named_recipe, train_into, with_classes
from rediffuse.training.config import SuperResTraining
from rediffuse.training.recipes import SUPERRES_RECIPES

DEFAULT_RECIPE = "clothing64_superres"


@dataclass(frozen=True, kw_only=True)
class TrainSuperResFlags(RunFlags):
    """Train a super-resolution model on a folder of images; the small images are made from them.

    The recipe gives every default below. The same command continues from the last checkpoint. Exit status: 0 trained,
    1 it diverged or the disk is full, 2 usage error, 128 + the signal that stopped it.
    """

    training: Annotated[SuperResTraining, TRAINING]
    recipe: str = DEFAULT_RECIPE
    """The defaults of all other flags: clothing64_superres."""
    class_conditional: bool = False
    """Train with the classes of the data: its subfolders, or --labels."""


def defaults(words: Sequence[str]) -> TrainSuperResFlags:
    """The default flags: those of the recipe that `words` name.

    Raises:
        ConfigError: there is no such recipe.
    """
    name, training = named_recipe(words, SUPERRES_RECIPES, DEFAULT_RECIPE)
    return TrainSuperResFlags(training=training, out=MISSING, recipe=name)


def run(args: TrainSuperResFlags) -> Result:
    """Train, or with --dry-run return the cost."""
    listing = listing_of(args.training)
    config = with_classes(args.training, listing) if args.class_conditional else args.training
    if args.dry_run:
        return dry_run(config, "superres", listing, args.init)
    from rediffuse.training.superres import SuperResTask

    return train_into(args, SuperResTask(config), config)
