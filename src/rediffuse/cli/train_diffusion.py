"""`rediffuse train diffusion`: train with a recipe, whose fields flags can change, in a run folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from rediffuse.cli.flags import MISSING
from rediffuse.cli.result import Result
from rediffuse.cli.training import TRAINING, RunFlags, dry_run, listing_of, named_recipe, train_into, with_classes
from rediffuse.training.config import DiffusionTraining
from rediffuse.training.recipes import RECIPES

DEFAULT_RECIPE = "clothing32"


@dataclass(frozen=True, kw_only=True)
class TrainDiffusionFlags(RunFlags):
    """Train a diffusion model on a folder of images.

    The recipe gives every default below: `--recipe NAME --help` shows those of another one. The same command
    continues from the last checkpoint. Exit status: 0 trained, 1 it diverged or the disk is full, 2 usage error,
    128 + the signal that stopped it.
    """

    training: Annotated[DiffusionTraining, TRAINING]
    recipe: str = DEFAULT_RECIPE
    """The defaults of all other flags: clothing32, windows32, clothing64, imagenet64."""
    class_conditional: bool = False
    """Train with the classes of the data: its subfolders, or --labels."""


def defaults(words: Sequence[str]) -> TrainDiffusionFlags:
    """The default flags: those of the recipe that `words` name.

    Raises:
        ConfigError: there is no such recipe.
    """
    name, training = named_recipe(words, RECIPES, DEFAULT_RECIPE)
    return TrainDiffusionFlags(training=training, out=MISSING, recipe=name)


def run(args: TrainDiffusionFlags) -> Result:
    """Train, or with --dry-run return the cost."""
    listing = listing_of(args.training)
    config = with_classes(args.training, listing) if args.class_conditional else args.training
    if args.dry_run:
        return dry_run(config, "unet", listing, args.init)
    from rediffuse.training.diffusion import DiffusionTask

    return train_into(args, DiffusionTask(config), config)
