"""Classifier guidance: a classifier of noisy images guides a diffusion model."""

import math

from torch import Tensor

from rediffuse.diffusion.guidance import Guidance, classifier_guidance
from rediffuse.errors import ConfigError
from rediffuse.zoo.model import ClassifierModel, DiffusionModel


def guide(model: DiffusionModel, classifier: ClassifierModel, scale: float) -> Guidance:
    """Guidance of `model` by `classifier` (ADM, arXiv:2105.05233, Sec. 4), for `sample`.

    Args:
        model: a class-conditional model with the same classes, or an unconditional one.
        classifier: a classifier of noisy images, on the model's device.
        scale: factor of the classifier's gradient, 0 or more; 1 samples from the posterior given the class.

    Raises:
        ConfigError: the scale is not allowed, or the two differ in image size, channels, classes or noise; names both
            values. The guidance raises it for a label out of range.
    """
    if not 0 <= scale < math.inf:
        raise ConfigError(f"scale={scale}: 0 or more is needed")
    fits = {
        "image size": (classifier.image_size, model.image_size),
        "channels": (classifier.network.config.in_channels, model.network.config.in_channels),
        "noise": (classifier.process_config.noise, model.process_config.noise),
    }
    if model.num_classes is not None:
        fits["number of classes"] = (classifier.num_classes, model.num_classes)
        names = [", ".join(trained.training.get("classes", ())) for trained in (classifier, model)]
        if all(names):  # files of other programs have no names
            fits["classes"] = (names[0], names[1])
    for name, (given, needed) in fits.items():
        if given != needed:
            source = classifier.provenance.source
            raise ConfigError(f"{source}: a classifier of {name} {given} cannot guide a model of {name} {needed}")
    gradient = classifier_guidance(classifier.network, scale)
    largest = classifier.num_classes - 1

    def guidance(x_t: Tensor, timesteps: Tensor, *, y: Tensor, **_: object) -> Tensor:
        # On an accelerator this check would synchronise with the device; there the gradient itself raises.
        if y.device.type == "cpu" and y.max() > largest:
            raise ConfigError(f"labels: class {y.max().item()} is given; the classifier has 0 to {largest}")
        return gradient(x_t, timesteps, y=y)

    return guidance
