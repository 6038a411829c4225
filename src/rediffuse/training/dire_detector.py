"""Make detectors of the networks that the original DIRE trained (arXiv:2303.09295, section 4.1).

Such a network is a ResNet-50 with one output. The original calls an image generated if the sigmoid of the output is
above 0.5. This does not hold for other images than those of its training, so the thresholds come from images that the
user gives.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rediffuse.detection.assemble import LeftOutResults, assemble
from rediffuse.detection.calibrate import Calibrated, report
from rediffuse.detection.config import FIVE_PERCENT, Limits
from rediffuse.detection.evaluate import Judged, Outcome
from rediffuse.detection.familiarity import fit_familiarity
from rediffuse.detection.features import FEATURES, MapInput, detector_input
from rediffuse.detection.labelled import LabelledImage, left_out_scores
from rediffuse.detection.metrics import roc_auc
from rediffuse.detection.resnet import ResNet50
from rediffuse.detection.scorers import MapScorer
from rediffuse.dire.job import reconstruct_files
from rediffuse.dire.reconstruct import Reconstruction, network_calls
from rediffuse.dire.settings import DireSettings
from rediffuse.errors import CheckpointError, ConfigError, InputError
from rediffuse.files import sha256_of
from rediffuse.models.checkpoints import load_into, read_state_dict
from rediffuse.progress import Progress, counted, unobserved
from rediffuse.training.leave_out import assign_folds, left_out_distances, plan_of_folds
from rediffuse.training.samples import measure
from rediffuse.zoo.model import DiffusionModel

MAP_SIZE = 256
"""Side of the maps that the published networks were trained on, in pixels."""


def convert_detector(
    source: Path,
    model: DiffusionModel,
    images: Sequence[LabelledImage],
    settings: DireSettings,
    *,
    map_size: int = MAP_SIZE,
    limits: Limits = FIVE_PERCENT,
    batch_size: int = 16,
    workers: int = 2,
    progress: Progress = unobserved,
) -> Calibrated:
    """Calibrate a network of DIRE by images of known class, and make a detector of it.

    The network does not change. Its probability (Platt scaling), the thresholds and the distribution of familiar images
    are those of `images`; for the limit of familiarity whole groups are left out in turn.

    Args:
        source: a file of `torch.save` with the state_dict, or with `{"model": state_dict}`.
        model: the diffusion model whose maps the network was trained on.
        images: from `find_labelled`; none of them may be in the training data of the network.
        settings: those of the maps of its training; the original's are `DireSettings.for_model(model)`.
        map_size: side of these maps, in pixels; maps are not scaled.
        limits: the limits that thresholds and familiarity are chosen for.
        batch_size: see `dire.job.reconstruct_files`.
        workers: see `dire.job.reconstruct_files`.
        progress: called with the number of images that are reconstructed.

    Raises:
        CheckpointError: the file holds no ResNet-50 with one output, and names the tensors that do not fit; or its
            output is not a number.
        ConfigError: the model's maps have another size, the settings are of windows, or a limit is smaller than the
            number of images or groups supports; says how many are needed.
        InputError: a class has fewer than 3 images that can be reconstructed, or the output of the network is not
            higher for generated images than for real ones.
    """
    network = ResNet50()
    load_into(network, read_state_dict(source), source)
    if settings.image_size != map_size:
        raise ConfigError(
            f"image_size={map_size}: {source} takes maps of this size; those of the model have {settings.image_size} px"
        )
    given = detector_input("map_8bit", settings)
    assert isinstance(given, MapInput)
    scorer = MapScorer(input=given, network=network.eval().to(model.device))
    # A limit that all files together do not support is refused before the work.
    left_out_scores(images, [0.5] * len(images)).thresholds(limits.max_false_alarms, limits.max_misses)

    def finite_logits(reconstruction: Reconstruction) -> np.ndarray:
        output = scorer.logits(reconstruction)
        if not np.isfinite(output).all():
            raise CheckpointError(f"{source}: the output of the network is {output[0]}; the file is damaged")
        return output

    found = [image.found for image in images]
    results = reconstruct_files(model, found, settings, batch_size=batch_size, workers=workers)
    familiar = FEATURES[given.familiar]
    samples = measure(
        images,
        counted(results, "calibrate", len(images), progress),
        {given.name: finite_logits, familiar.name: familiar.measure},
    )
    logits = samples.inputs[given.name]
    features, every = samples.inputs[familiar.name], np.ones(len(logits), bool)
    plan = plan_of_folds(samples.images, assign_folds(samples.images), every, every)
    distances = left_out_distances(features, samples.labels, plan.fits)
    detector = assemble(
        scorer,
        fit_familiarity(features, samples.labels),
        settings,
        LeftOutResults(images=samples.images, logits=logits, distances=distances, kinds=np.zeros(len(logits), int)),
        limits,
        {
            "input": given.name,
            "source": {"name": source.name, "sha256": sha256_of(source)},
            "network_calls": network_calls(model, settings),
            "images": samples.counts,
            "num_skipped": len(samples.skipped),
        },
    ).with_limits(limits.max_false_alarms, limits.max_misses)  # which refuses a limit that too few images support
    if detector.calibration.slope <= 0:
        auc = roc_auc(samples.labels, logits)
        raise InputError(f"{source}: its output is not higher for generated images than for real ones (AUC {auc:.3f})")
    probabilities = detector.calibration.probabilities(logits).tolist()
    judged = [
        Judged(image, codec, Outcome(probability, *detector.decide(probability, distance)), None)
        for image, codec, probability, distance in zip(
            samples.images, samples.codecs, probabilities, distances.tolist(), strict=True
        )
    ]
    return report(detector, judged, skipped=samples.skipped)
