"""Training a detector: reconstruct, fit on `train`, select and calibrate on `validation`, report on `test`.

Real and generated images go through the same decoder, crop and reconstruction, also if their file formats differ.
"""

import dataclasses
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

from rediffuse.detection.audit import audit, audit_folder
from rediffuse.detection.calibration import Calibration, choose_thresholds, fit_calibration
from rediffuse.detection.config import InputName
from rediffuse.detection.detector import SUBFOLDER, Detector, load_detector
from rediffuse.detection.evaluate import Evaluation, evaluate, evaluation_table
from rediffuse.detection.familiarity import familiarity_limit, feature_scale, fit_familiarity
from rediffuse.detection.features import INPUTS, FeatureSet, MapInput, detector_input
from rediffuse.detection.judge import require_model
from rediffuse.detection.labelled import LabelledImage, find_labelled
from rediffuse.detection.metrics import expected_calibration_error, roc_auc
from rediffuse.detection.resnet import load_resnet50
from rediffuse.detection.scorers import BandScorer, MapScorer, Scorer
from rediffuse.dire.job import reconstruct_files
from rediffuse.dire.reconstruct import network_calls
from rediffuse.dire.settings import DireSettings
from rediffuse.errors import RediffuseError
from rediffuse.files import write_bytes
from rediffuse.images.find import FoundImage
from rediffuse.progress import Progress, counted, unobserved
from rediffuse.records import digest, dump
from rediffuse.training.detector_config import DetectorTraining
from rediffuse.training.loop import train
from rediffuse.training.map_task import WEIGHTS_NAME, MapTask
from rediffuse.training.reconstructions import ReconstructionCache
from rediffuse.training.samples import Samples, measure
from rediffuse.zoo.model import DiffusionModel

CONTROL = "control"
"""The subfolder of a detector's folder that holds its control."""
AUDITED = 1000
"""Largest number of files of each class that are audited before a training."""
LOGGER = logging.getLogger(__name__)
UNCALIBRATED = Calibration(slope=1, offset=0)


class TrainingStopped(RediffuseError):
    """A signal ended the training; the same command continues it."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The training and validation data of classifiers at one depth."""

    settings: DireSettings
    network_calls: int
    """Per image, all its windows together."""
    train: Samples
    validation: Samples


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One classifier of the search, and its AUC on validation images."""

    input: InputName
    depth: int | None
    network_calls: int
    """Network calls per image, all its windows together."""
    inverse_penalty: float | None
    """The C of the logistic regression; None for a ResNet-50."""
    validation_auc: float


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A classifier with its training and validation data."""

    scorer: Scorer
    candidate: Candidate
    measured: Measured


def train_detector(
    config: DetectorTraining, model: DiffusionModel, folder: Path, *, progress: Progress = unobserved
) -> Evaluation:
    """Audit the data, search, fit and report; the same call resumes a training that was stopped.

    The conclusion of the audit (`detection.audit`), from at most `AUDITED` files of each class, is logged and written
    to `report.json`. It does not stop the training.

    Args:
        config: the data and the candidates.
        model: the diffusion model that reconstructs the images.
        folder: gets `detector/` (with `control/` inside), `report.json` and `report.txt`. `reconstructions/` and
            `runs/` are caches for a second call, and may be removed.
        progress: called with the number of images that are audited and reconstructed, and the number of steps of a
            ResNet-50.

    Returns:
        The figures on the test images.

    Raises:
        InputError: a folder of the data is missing, or none of its images can be used.
        ConfigError: a setting does not fit the model.
        StorageError: a file cannot be written.
        TrainingStopped: a signal ended the training of a ResNet-50.
    """
    images = {split: find_labelled(config.data / split) for split in ("train", "validation", "test")}
    audited = audit(audit_folder(config.data), max_files=AUDITED, workers=config.workers, progress=progress)
    LOGGER.log(logging.INFO if audited.can_carry_a_claim else logging.WARNING, "%s", audited.line)
    cache = ReconstructionCache(
        folder=folder / "reconstructions", model=model, batch_size=config.batch_size, workers=config.workers
    )
    fits = _search(config, cache, images, folder / "runs", progress)
    best = _best(fits)
    controls = _fit(best.scorer.input.control, best.measured, config, folder / "runs", progress)
    control_fit = _best(controls)
    detector, control = (_detector(fit, config) for fit in (best, control_fit))
    detector.save(folder / SUBFOLDER)
    control.save(folder / SUBFOLDER / CONTROL)
    results = cache.reconstruct(_found(images["test"]), best.measured.settings)
    results = counted(results, "test", len(images["test"]), progress)
    evaluation = evaluate(detector, control, images["test"], results)
    report = {
        "settings": dump(best.measured.settings),
        "detector": dump(best.candidate),
        "control": dump(control_fit.candidate),
        "candidates": [dump(fit.candidate) for fit in fits + controls],
        "training": detector.training,
        "audit": audited.line,
        "test": dump(evaluation),
    }
    write_bytes(folder / "report.json", (json.dumps(report, indent=2) + "\n").encode())
    write_bytes(folder / "report.txt", (evaluation_table(evaluation) + "\n").encode())
    return evaluation


def evaluate_detector(
    model: DiffusionModel,
    data: Path,
    folder: Path,
    *,
    batch_size: int = 32,
    workers: int = 2,
    progress: Progress = unobserved,
) -> Evaluation:
    """The figures of a saved detector and of its control on the images in `data` (`real/` and `generated/`).

    `progress` is called with the number of images that are reconstructed.

    Raises:
        InputError: there is no detector in `folder`, or no images in `data`.
        SettingsMismatch: the detector was trained with another model.
    """
    detector, control = (load_detector(path, device=model.device) for path in (folder, folder / CONTROL))
    require_model(model, detector)
    images = find_labelled(data)
    results = reconstruct_files(model, _found(images), detector.settings, batch_size=batch_size, workers=workers)
    return evaluate(detector, control, images, counted(results, data.name, len(images), progress))


def fit_bands(feature_set: FeatureSet, features: np.ndarray, labels: np.ndarray, inverse_penalty: float) -> BandScorer:
    """Logistic regression on standardised features (N, F), with equal weight for both classes.

    Args:
        inverse_penalty: C, the factor of the loss relative to the penalty |weights|^2 / 2.
    """
    mean, scale = features.mean(axis=0), feature_scale(features)
    regression = LogisticRegression(C=inverse_penalty, class_weight="balanced", max_iter=10_000)
    regression.fit((features - mean) / scale, labels)
    offset = float(np.ravel(regression.intercept_)[0])
    return BandScorer(input=feature_set, mean=mean, scale=scale, weight=regression.coef_[0], offset=offset)


def _search(
    config: DetectorTraining,
    cache: ReconstructionCache,
    images: dict[str, list[LabelledImage]],
    runs: Path,
    progress: Progress,
) -> list[Fit]:
    """Fit every input at every depth. Inputs with a second view have separate settings, as they cost more calls."""
    fits = []
    views = sorted({INPUTS[name].needs_second_view for name in config.features})
    for settings in [_settings(config, cache.model, depth, view) for depth in config.depths for view in views]:
        names: list[InputName] = [
            name for name in config.features if INPUTS[name].needs_second_view == settings.second_view
        ]
        samples: dict[str, Samples] = {}
        for split in ("train", "validation"):
            results = cache.reconstruct(_found(images[split]), settings)
            results = counted(results, f"depth {settings.depth}, {split}", len(images[split]), progress)
            samples[split] = measure(images[split], results, _needed(names))
        calls = network_calls(cache.model, settings)
        measured = Measured(
            settings=settings, network_calls=calls, train=samples["train"], validation=samples["validation"]
        )
        for name in names:
            fits += _fit(name, measured, config, runs, progress)
    return fits


def _fit(name: InputName, measured: Measured, config: DetectorTraining, runs: Path, progress: Progress) -> list[Fit]:
    """The classifiers of one input at one depth."""
    given = detector_input(name, measured.settings)
    if isinstance(given, MapInput):
        return [_chosen(_train_map(given, measured, config, runs, progress), None, measured)]
    features, labels = measured.train.inputs[name], measured.train.labels
    return [
        _chosen(fit_bands(given, features, labels, inverse_penalty), inverse_penalty, measured)
        for inverse_penalty in config.inverse_penalties
    ]


def _train_map(
    given: MapInput, measured: Measured, config: DetectorTraining, runs: Path, progress: Progress
) -> MapScorer:
    run = runs / f"{given.name}-{digest(measured.settings)}"
    train_maps, validation_maps = (
        (samples.inputs[given.name], samples.labels) for samples in (measured.train, measured.validation)
    )
    task = MapTask(given, train_maps, validation_maps, config.resnet.seed, config.resnet_weights)
    outcome = train(task, config.resnet, run, progress=progress)
    if outcome.stopped_by is not None:
        raise TrainingStopped(f"{run}: stopped at step {outcome.step}; the same command continues")
    network = load_resnet50(run / "model" / WEIGHTS_NAME, given.num_channels)
    return MapScorer(input=given, network=network)


def _chosen(scorer: Scorer, inverse_penalty: float | None, measured: Measured) -> Fit:
    logits = scorer.logits_of(measured.validation.inputs[scorer.input.name])
    candidate = Candidate(
        input=scorer.input.name,
        depth=measured.settings.depth,
        network_calls=measured.network_calls,
        inverse_penalty=inverse_penalty,
        validation_auc=roc_auc(measured.validation.labels, logits),
    )
    return Fit(scorer=scorer, candidate=candidate, measured=measured)


def _best(fits: Sequence[Fit]) -> Fit:
    """The classifier with the largest AUC on validation images; of equal ones the first."""
    return max(fits, key=lambda fit: fit.candidate.validation_auc)


def _detector(fit: Fit, config: DetectorTraining) -> Detector:
    """Calibrate a classifier and set its thresholds on validation images."""
    scorer, train_samples, validation = fit.scorer, fit.measured.train, fit.measured.validation
    familiarity = fit_familiarity(train_samples.inputs[scorer.input.familiar], train_samples.labels)
    limit = familiarity_limit(familiarity, validation.inputs[scorer.input.familiar], 1 - config.unfamiliar_rate)
    logits = scorer.logits_of(validation.inputs[scorer.input.name])
    calibration = fit_calibration(validation.labels, logits)
    probabilities = calibration.probabilities(logits)
    return Detector(
        scorer=scorer,
        familiarity=dataclasses.replace(familiarity, limit=limit),
        settings=fit.measured.settings,
        calibration=calibration,
        thresholds=choose_thresholds(validation.labels, probabilities, config.error_rate),
        training={
            **dump(fit.candidate),
            "train": train_samples.counts,
            "validation": validation.counts,
            "num_skipped": train_samples.num_skipped + validation.num_skipped,
            "calibration_error": {
                "before": expected_calibration_error(validation.labels, UNCALIBRATED.probabilities(logits)),
                "after": expected_calibration_error(validation.labels, probabilities),
            },
        },
    )


def _settings(config: DetectorTraining, model: DiffusionModel, depth: int, second_view: bool) -> DireSettings:
    return DireSettings.for_model(
        model,
        steps=config.steps,
        depth=depth,
        clip=config.clip,
        precision=config.precision,
        grid=config.grid,
        solver=config.solver,
        spacing=config.spacing,
        crop=config.crop,
        frequency=config.frequency,
        second_view=second_view,
    )


def _needed(names: Sequence[InputName]) -> list[InputName]:
    """The inputs, their controls, and the features for the distance to the training images."""
    with_controls: list[InputName] = [*names, *(INPUTS[name].control for name in names)]
    return list(dict.fromkeys([*with_controls, *(INPUTS[name].familiar for name in with_controls)]))


def _found(images: Sequence[LabelledImage]) -> list[FoundImage]:
    return [image.found for image in images]
